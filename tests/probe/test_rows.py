"""Copies of the picked rows: what is copied, and where the copies lie."""

from __future__ import annotations

import torch

from probe.rows import Shelf, pick


def test_copies_are_the_picked_tokens_and_nothing_that_comes_later():
    picked = pick(4, 32, None, torch.device("cpu"))
    one, two = (torch.randn(4, 32, 6) for _ in range(2))
    first, second = picked.take(one), picked.take(two)
    expected = one[picked.rows[:, None], picked.positions].clone()
    one.zero_()
    assert torch.equal(first, expected)
    assert torch.equal(second, two[picked.rows[:, None], picked.positions])


def test_heads_are_copied_alike_in_either_layout():
    picked = pick(4, 32, None, torch.device("cpu"))
    heads = torch.randn(4, 3, 32, 5)
    laid_by_token = heads.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(picked.take_heads(heads), picked.take_heads(laid_by_token))


def test_a_shelf_gives_each_copy_room_of_its_own_in_shared_pieces():
    shelf, like = Shelf(), torch.empty(0)
    one, two = shelf.room(4, 8, like), shelf.room(2, 8, like)
    one.fill_(1.0)
    two.fill_(2.0)
    assert (one == 1.0).all() and one.is_contiguous()
    assert one.untyped_storage().data_ptr() == two.untyped_storage().data_ptr()
    other = shelf.room(1, 3, torch.empty(0, dtype=torch.float64))
    assert other.dtype == torch.float64


def test_what_is_larger_than_a_piece_gets_one_of_its_size():
    shelf, like = Shelf(), torch.empty(0)
    small = shelf.room(1, 10, like)
    large = shelf.room(1, 40 << 20, like)
    assert large.numel() == 40 << 20
    assert large.untyped_storage().data_ptr() != small.untyped_storage().data_ptr()
