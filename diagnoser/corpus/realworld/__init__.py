"""Faults from public issues, written anew as small scripts: what the diagnosis is examined on.

Each case is one file: the code as a user or a library had it, the fix beside it, and what a
diagnosis should say. **Nothing here is ever trained on**: the corpus' planning does not know of
these scripts, they share neither models nor text nor operators with it, and neither the weights nor
any threshold may be chosen by their outcome.

    python -m diagnoser.corpus.realworld            run all, print the table
    python -m diagnoser.corpus.realworld --write    put it in the README of this folder
"""
