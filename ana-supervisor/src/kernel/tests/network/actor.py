"""A process of the tests: runs what it is told, a line of Python at a time, and says what came of it."""

import array
import ctypes
import errno
import os
import socket
import struct
import subprocess
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
NETNS_COOKIE, FASTOPEN = 71, 0x20000000
S = {}


def family(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def make(name, host, kind=socket.SOCK_STREAM, protocol=0):
    if name in S:
        S[name].close()
    S[name] = socket.socket(family(host), kind, protocol)
    S[name].settimeout(5)
    return S[name]


def call(function, *arguments):
    """'ok', or the name of the error."""
    try:
        function(*arguments)
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno]
    return "ok"


def connect(name, host, port):
    return call(make(name, host).connect, (host, port))


def udp(name, host, port):
    return call(make(name, host, socket.SOCK_DGRAM).connect, (host, port))


def again(name, host, port):
    return call(S[name].connect, (host, port))


def unspecified(name):
    address = struct.pack("=H14x", socket.AF_UNSPEC)
    return "ok" if LIBC.connect(S[name].fileno(), address, len(address)) == 0 else "error"


def send(name, data, *rest):
    return call(lambda: S[name].sendto(data, *rest) if rest else S[name].send(data))


def shown(address):
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def peer(name):
    return shown(S[name].getpeername())


def local(name):
    return shown(S[name].getsockname())


def receive(name):
    data, address = S[name].recvfrom(2048)
    return f"{data.decode()} from {shown(address)}"


def listen(name, host, port, *options):
    server = make(name, host)
    if family(host) == socket.AF_INET6:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if options == ("both",) else 1)
        options = () if options == ("both",) else options
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for option, value in options:
        server.setsockopt(socket.SOL_SOCKET, option, value)
    server.bind((host, port))
    server.listen(256)


def bound(name, host, port, *options):
    server = make(name, host, socket.SOCK_DGRAM)
    for option, value in options:
        server.setsockopt(socket.SOL_SOCKET, option, value)
    server.bind((host, port))


def accept(server, name):
    S[name], address = S[server].accept()
    S[name].settimeout(5)
    return shown(address)


def waits(server):
    """How many connections wait to be accepted."""
    count = 0
    S[server].settimeout(0.2)
    try:
        while True:
            S[server].accept()[0].close()
            count += 1
    except TimeoutError:
        return count
    finally:
        S[server].settimeout(5)


def close(name):
    S.pop(name).close()


def send_many(name, targets):
    """sendmmsg(2): how many went."""

    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]

    class Header(ctypes.Structure):
        _fields_ = [
            ("name", ctypes.c_char_p),
            ("name_length", ctypes.c_uint32),
            ("vector", ctypes.POINTER(Vector)),
            ("vectors", ctypes.c_size_t),
            ("control", ctypes.c_void_p),
            ("control_length", ctypes.c_size_t),
            ("flags", ctypes.c_long),
            ("sent", ctypes.c_uint),
        ]

    headers = (Header * len(targets))()
    keep = []
    for header, (host, port) in zip(headers, targets):
        name_bytes = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
        vector = Vector(b"x", 1)
        keep += [name_bytes, vector]
        header.name, header.name_length = name_bytes, len(name_bytes)
        header.vector, header.vectors = ctypes.pointer(vector), 1
    sent = LIBC.sendmmsg(S[name].fileno(), headers, len(targets), 0)
    return sent if sent >= 0 else errno.errorcode[ctypes.get_errno()]


def swap(rounds, first, second):
    """Connects to an address that another thread keeps changing; gives the pairs of (who was reached, who is shown)."""
    # Without the interpreter's lock while the kernel works; the swapping thread runs then.
    buffer = ctypes.create_string_buffer(16)
    pack = lambda host, port: struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    one, two = pack(*first), pack(*second)
    over = threading.Event()

    def flip():
        while not over.is_set():
            ctypes.memmove(buffer, two, 16)
            ctypes.memmove(buffer, one, 16)

    thread = threading.Thread(target=flip)
    sys.setswitchinterval(1e-6)
    thread.start()
    seen = {}
    for _ in range(rounds):
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if LIBC.connect(s.fileno(), buffer, 16) == 0:
                # The loopback address as the source is the proxy's peer.
                pair = (shown(s.getpeername()), s.getsockname()[0] == "127.0.0.1")
                seen[pair] = seen.get(pair, 0) + 1
        except OSError:
            pass  # Reset by a server with too many at once.
        s.close()
    over.set()
    thread.join()
    return sorted(seen)


def wander(name, rounds, targets):
    """Sends while another thread connects the socket to one target after the other; None: to nowhere. Whether some went."""
    pack = lambda host, port: struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
    nowhere = struct.pack("=H14x", socket.AF_UNSPEC)
    addresses = [pack(*target) if target else nowhere for target in targets]
    number, over, sent = S[name].fileno(), threading.Event(), 0

    def move():
        while not over.is_set():
            for address in addresses:
                LIBC.connect(number, address, 16)

    thread = threading.Thread(target=move)
    sys.setswitchinterval(1e-6)
    thread.start()
    while rounds > 0 or not sent:
        sent += LIBC.send(number, b"x", 1, 0) == 1
        rounds -= 1
    over.set()
    thread.join()
    return sent > 0


def pass_on(name, path):
    """Hands a socket to whoever connects to a unix socket."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(1)

    def give():
        connection, _ = server.accept()
        socket.send_fds(connection, [b"x"], [S[name].fileno()])
        connection.close()
        server.close()

    threading.Thread(target=give).start()


def take_over(name, path):
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(path)
    _, fds, _, _ = socket.recv_fds(client, 1, 1)
    S[name] = socket.socket(fileno=fds[0])
    S[name].settimeout(5)


def cookie():
    with socket.socket() as s:
        return struct.unpack("=Q", s.getsockopt(socket.SOL_SOCKET, NETNS_COOKIE, 8))[0]


def run(command):
    return subprocess.run(command, shell=True, capture_output=True, text=True).returncode


def main():
    for line in sys.stdin:
        try:
            answer = eval(line, globals())
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        print(str(answer).replace("\n", " "), flush=True)


main()
