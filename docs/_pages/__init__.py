"""Pages of the site that are generated: the API by room, and the command line."""
