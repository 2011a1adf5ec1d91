# A web application: each POST is a visit, which is counted in Redis and written into a file; GET tells both.
import http.server
import os
import socket

FILE = "/visits/visits"


def redis(*words):
    with socket.create_connection(("redis", 6379), timeout=10) as connection:
        message = f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        connection.sendall(message.encode())
        return connection.makefile().readline().strip()


class Counter(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        count = redis("INCR", "visits").lstrip(":")
        with open(FILE, "a") as file:
            file.write(f"{count}\n")
            file.flush()
            os.fsync(file.fileno())
        self.tell()

    def do_GET(self):
        self.tell()

    def tell(self):
        lines = sum(1 for _ in open(FILE)) if os.path.exists(FILE) else 0
        body = f"{lines}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


http.server.ThreadingHTTPServer(("", 8000), Counter).serve_forever()
