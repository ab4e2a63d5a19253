"""For `jupyter lab --config=…`: small messages leave at once; else the server's sockets wait for more."""

from tornado.httpserver import HTTPServer

handle = HTTPServer.handle_stream


def prompt(self, stream, address):
    stream.set_nodelay(True)
    return handle(self, stream, address)


HTTPServer.handle_stream = prompt
