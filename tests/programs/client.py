"""Python's clients: `requests URL`, `aiohttp URL`, `threads URL`: requests in a thread while another one counts."""
import sys
import threading
import time

how, url = sys.argv[1:3]


def with_requests():
    import requests

    answer = requests.get(url, timeout=100)
    return f"{answer.status_code} {answer.text}"


def with_aiohttp():
    import asyncio

    import aiohttp

    async def get():
        async with aiohttp.ClientSession(trust_env=True) as session:
            async with session.get(url) as answer:
                return f"{answer.status} {await answer.text()}"

    return asyncio.run(get())


def with_threads():
    done = threading.Event()
    ticks = 0
    answers = []

    def fetch():
        answers.append(with_requests())
        done.set()

    threading.Thread(target=fetch).start()
    while not done.is_set():
        ticks += 1
        if ticks % 20 == 0:
            print(f"ticks {ticks}", flush=True)
        time.sleep(0.05)
    return answers[0]


try:
    sys.stdout.write({"requests": with_requests, "aiohttp": with_aiohttp, "threads": with_threads}[how]())
except Exception as error:  # whatever it is, the test wants to read it
    print(f"error: {error}")
    sys.exit(1)
