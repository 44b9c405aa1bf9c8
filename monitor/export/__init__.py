"""A saved run as tables: CSV, Parquet, SQLite. One module for each format, by the file's ending."""
