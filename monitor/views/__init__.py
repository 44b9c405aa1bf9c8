"""The views: one large area each, of which one is on the screen."""
