"""Asks a vLLM for the KV-cache events that it still has, and writes them as fixtures/vllm has them.

    replay.py REPLAY_ENDPOINT DIRECTORY

`events.jsonl` gets one message per line, decoded by vLLM's own msgpack library; `replay.json` the
answers to requests from the start, from the last three on, and beyond the end.
"""

import json
import sys

import msgspec
import zmq

END = b"\xff" * 8


def plain(value):
    """JSON of what msgpack knows more of."""
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def ask(endpoint, start):
    """The request and all frames that come back, the end marker with them."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(endpoint)
    sent = [b"", start.to_bytes(8, "big")]
    socket.send_multipart(sent)
    received = []
    while not received or END not in received[-1]:
        if not socket.poll(20_000):
            sys.exit(f"{endpoint} does not answer")
        received.append(socket.recv_multipart())
    socket.close()
    return sent, received


def main():
    endpoint, directory = sys.argv[1:]
    replays, batches = [], []
    start = 0
    for which in ("all", "last", "none"):
        if which == "last":
            start = max(0, len(batches) - 3)
        if which == "none":
            start = len(batches) + 1000
        sent, received = ask(endpoint, start)
        if which == "all":
            batches = [frames[1:] for frames in received[:-1]]
        replays.append(
            {
                "socket": "DEALER",
                "start_seq": start,
                "sent_hex": [frame.hex() for frame in sent],
                "received_hex": [[frame.hex() for frame in frames] for frames in received],
            }
        )
    with open(f"{directory}/events.jsonl", "w", encoding="utf-8") as out:
        for topic, sequence, payload in batches:
            line = {
                "step": "",
                "seq": int.from_bytes(sequence, "big"),
                "topic": topic.decode(),
                "frames_hex": [topic.hex(), sequence.hex(), payload.hex()],
                "decoded": plain(msgspec.msgpack.decode(payload)),
            }
            out.write(json.dumps(line) + "\n")
    with open(f"{directory}/replay.json", "w", encoding="utf-8") as out:
        json.dump(replays, out)


main()
