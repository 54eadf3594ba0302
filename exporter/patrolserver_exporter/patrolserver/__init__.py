"""PatrolServer's API: the client, its lenient wire layer, and the strict models that come out of it."""
