"""From feature tables to evidence about single features. Arrays and tables in, tables out."""
