"""Charts drawn by line: pure raster functions, and thin widgets around them."""
