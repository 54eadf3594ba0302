"""The configuration: read strictly, typed and frozen. `load` reads it, `schema` holds the types."""
