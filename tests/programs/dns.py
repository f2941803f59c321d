"""Asks a DNS server: `dns.py SERVER NAME KIND [tcp]`; prints the answer's bytes in hexadecimal, or the error."""
import socket
import struct
import sys

server, name, kind = sys.argv[1:4]
labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
query = struct.pack("!6H", 0x2026, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", int(kind), 1)
family = socket.AF_INET6 if ":" in server else socket.AF_INET
try:
    if "tcp" in sys.argv:
        with socket.socket(family, socket.SOCK_STREAM) as stream:
            stream.settimeout(10)
            stream.connect((server, 53))
            stream.sendall(struct.pack("!H", len(query)) + query)
            file = stream.makefile("rb")
            answer = file.read(struct.unpack("!H", file.read(2))[0])
            print("from", stream.getpeername()[0])
    else:
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.settimeout(10)
            if "connected" in sys.argv:
                datagrams.connect((server, 53))
                datagrams.send(query)
                answer, peer = datagrams.recvfrom(4096)
            else:
                datagrams.sendto(query, (server, 53))
                answer, peer = datagrams.recvfrom(4096)
            print("from", peer[0])
    print("answer", answer.hex())
except OSError as error:
    print("error", error.errno, error)
