"""gRPC handlers, one module for each kind of rpc."""
