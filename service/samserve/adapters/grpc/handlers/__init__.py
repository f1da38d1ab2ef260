"""gRPC handlers, one module per kind of rpc."""
