"""The panes of the main screen, one file each, and the screens that open over it."""
