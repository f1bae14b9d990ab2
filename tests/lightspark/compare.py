"""Lets Lightspark's own signer answer the events in a file, and compares: `compare.py FILE`. Each core compares some of them."""

import collections
import hashlib
import hmac
import json
import multiprocessing
import os
import sys

import lightspark_crypto

SEED = bytes(range(16))
SECRET = "39kyJO140000000000000000000049ws"


class Positive(lightspark_crypto.Validation):
    """Signs whatever it is asked."""

    def should_sign(self, webhook):
        return True


def official(body):
    """What Lightspark's signer answers: a mutation and its variables, as text. Nothing where there is no answer."""
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return lightspark_crypto.handle_remote_signing_webhook_event(body, signature, SECRET, SEED, Positive())


def compare(line):
    """What was asked for in an event, and how the answers differ, if they do."""
    event = json.loads(line)
    theirs = official(event["body"].encode())
    theirs = theirs and json.loads(theirs.variables)
    name = json.loads(event["body"])["data"]["sub_event_type"]
    if theirs == event["reply"]:
        return name, None
    return name, f"  event    {event['body']}\n  official {theirs}\n  claviger {event['reply']}"


def main():
    # Lightspark's library writes a line for each event.
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    counts = collections.Counter()
    with open(sys.argv[1], encoding="utf-8") as events, multiprocessing.Pool() as pool:
        for name, difference in pool.imap_unordered(compare, events, chunksize=64):
            if difference:
                sys.exit(f"an answer differs:\n{difference}")
            counts[name] += 1
    if not counts:
        sys.exit("there is no event")
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}: the same answers", file=report)


if __name__ == "__main__":
    main()
