"""A real claviger and a double of Lightspark; between them services with the official SDKs, which hold no key. The services
pay and withdraw, and then pass on Lightspark's webhooks and their answers; at last the signer calls back itself. Usage: stage.py EVENTS COMMAND…; EVENTS as for
`compare.py`, a COMMAND for each service; CLAVIGER_BIN names the signer's binary."""

import hashlib
import hmac
import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from datetime import datetime, timedelta, timezone
from http.client import HTTPSConnection
from pathlib import Path
from urllib.request import Request, urlopen

import lightspark_crypto
from claviger_lightspark import SIGNER, ClavigerKey
from compare import SECRET, SEED, official
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from lightspark.scripts.pay_invoice import PAY_INVOICE_MUTATION
from lightspark.utils.crypto import encrypt
from lightspark_double import GraphQl

PASSPHRASE = b"correct horse battery staple"
PATIENCE_S = 60
# Each service passes on so many events: the last twenty channels', which are fresh.
JOBS = 180
# Of a day in 2026, over 60,000 and 100,001 msat: no rule here looks at when they end.
INVOICE = "lnbcrt600n1p4sf5uqpp5dwrtyullxn7wr8ttsp807k3l2ar6mf825gh36jwqrefdmdu8td9ssp5qurswpc8qurswpc8qurswpc8qurswpc8qurswpc8qurswpc8qursdqqxqyz5vq9qrsgqv539ym9jgxf9f70ehqx0z73hdjcalsqq394e7xluxk4chy2hhfcp97zplr5tjhp29meg4suwdkjvxgx24jtwtcdfdzfv2ngyja82l5qqcl0udn"
TOO_MUCH = "lnbcrt1000010p1p4sf5uqpp563e4uw3xtctwacplt9cchx6aqvqecp7ckmz3lyx68fnxamqn4v6ssp5qurswpc8qurswpc8qurswpc8qurswpc8qurswpc8qurswpc8qursdqqxqyz5vq9qrsgqk9zsz4kcfq2mhn9sdgkwaq5s8kcqwh5y7fxhwcn2d9lmx0sz07rkn03knryrzjc4sg0dnkgmfss7upams8ma2vl5tguljsq3hhmsgucqhy2usu"
EXCHANGE = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
CONFIG = """network = "regtest"
[signer]
allow_root = true
[policy]
preset = "none"
[link]
listen = "127.0.0.1:{}"
[lightspark]
listen = "127.0.0.1:{}"
api = "{}/graphql/server/2023-09-13"
[chain]
url = "http://127.0.0.1:1"
user = "u"
password_file = "{}"
[limits]
max_onchain_sat = 50_000
max_onchain_sat_per_day = 60_000
"""
BUDGET = """version = 1
[[budget]]
name = "pay"
actions = ["PayInvoice"]
fact = "amount_msat"
scope = ["node"]
window = "24h"
limit = 100_000
"""
RULES = """@id("all") permit (principal, action, resource);
@id("elsewhere") forbid (principal, action == Action::"Withdraw", resource) when { context.unknown_destinations > 0 };
"""
LIST = f'[[destination]]\nlabel = "exchange"\naddress = "{EXCHANGE}"\n'


def free_ports():
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [listener.getsockname()[1] for listener in held]
    for listener in held:
        listener.close()
    return ports


class Signer:
    """A running claviger with the account `acme`."""

    def __init__(self, work, api):
        self.data, self.folder = work / "claviger", work / "acme.lightspark"
        self.cli("init", "--network", "regtest", "--preset", "none", "--kdf-memory-kib", "8", "--kdf-passes", "1",
                 "--passphrase-fd", "0")
        write = lambda name, content: ((work / name).write_text(content), (work / name).chmod(0o600), work / name)[2]
        link, self.webhooks = free_ports()
        config = CONFIG.format(link, self.webhooks, api, write("no-password", "p\n"))
        (self.data / "claviger.toml").write_text(config)
        command = [os.environ["CLAVIGER_BIN"], "--data-dir", self.data, "run", "--passphrase-fd", "0"]
        self.log = (work / "log").open("w+")
        self.daemon = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self.log, stdout=self.log)
        self.daemon.stdin.write(PASSPHRASE)
        self.daemon.stdin.close()
        eventually("the signer listens", lambda: socket.create_connection(("127.0.0.1", self.webhooks)).close())
        seed, secret = write("seed", bytes(SEED).hex()), write("secret", SECRET)
        self.cli("node", "add", "acme", "--kind", "lightspark", "--import", seed, "--format", "lightspark-seed",
                 "--webhook-secret", secret, "--out", self.folder)
        bundle = work / "policy"
        (bundle / "lists").mkdir(parents=True)
        for name, content in [("policy.toml", BUDGET), ("rules.cedar", RULES), ("lists/exchange.toml", LIST)]:
            (bundle / name).write_text(content)
        self.cli("policy", "apply", bundle)

    def cli(self, *arguments, told=PASSPHRASE):
        command = [os.environ["CLAVIGER_BIN"], "--data-dir", self.data, "--json", *arguments]
        done = subprocess.run(command, input=told, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"claviger {arguments[0]}: {done.stderr.decode()}")
        return json.loads(done.stdout) if done.stdout else None


def eventually(what, attempt):
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > end:
                sys.exit(f"never: {what}")
            time.sleep(0.05)


def shape(query):
    """What a mutation asks for, however it is laid out: its name, its field and the types of its variables."""
    name, field = re.search(r"mutation\s+(\w+)", query)[1], re.search(r"\{\s*(\w+)\(input", query)[1]
    return name, field, sorted(re.findall(r"\$(\w+)\s*:\s*([\w!\[\]]+)", query))


def send(port, body):
    """One webhook, as Lightspark sends it; the status it gets."""
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    return urlopen(Request(f"http://127.0.0.1:{port}/lightspark-webhook", body, {"lightspark-signature": signature})).status


def run_jobs(lightspark, port, events):
    """Each event is passed on, and its answer is Lightspark's own signer's."""
    for event in events:
        before = len(lightspark.answers)
        assert send(port, event["body"].encode()) == 204
        told, theirs = lightspark.answers[before:], official(event["body"].encode())
        assert [variables for _, variables in told] == ([event["reply"]] if theirs else []), event["body"]
        assert [shape(query) for query, _ in told] == ([shape(theirs.query)] if theirs else []), told
    return len(events)


def run_callbacks(signer, lightspark, events):
    """Once the account has a token, the signer itself tells Lightspark the same."""
    token = signer.data.with_name("token")
    token.write_text("id:secret")
    signer.cli("lightspark", "secrets", "acme", "--api-token", token)
    told, expected = lightspark.answers, []
    told.clear()
    tls = ssl.create_default_context(cafile=signer.folder / "ca.pem")
    for event in events:
        body = event["body"].encode()
        connection = HTTPSConnection("127.0.0.1", signer.webhooks)
        connection.sock = tls.wrap_socket(socket.create_connection(("127.0.0.1", signer.webhooks)), server_hostname=SIGNER)
        signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        connection.request("POST", "/ln/webhooks/acme", body, {"lightspark-signature": signature})
        assert connection.getresponse().status == 204
        connection.close()
        if theirs := official(body):
            expected.append((shape(theirs.query), event["reply"]))

    def all_told():
        if len(told) < len(expected):
            raise OSError("not yet")

    eventually("the signer tells all", all_told)
    told = [(shape(query), variables) for query, variables in told]
    assert sorted(map(json.dumps, told)) == sorted(map(json.dumps, expected)), (told, expected)
    return len(events)


def check_rsa(signer, work):
    """An account without remote signing: a key that Lightspark's SDK encrypted signs, and what it signs is good as Lightspark has it."""
    key = rsa.generate_private_key(65537, 4096)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    cipher, value = encrypt(der, "1234!@#$")
    osk, folder = work / "osk", work / "faye.lightspark"
    osk.write_text(json.dumps({"encrypted_value": value, "cipher": cipher}))
    signer.cli("node", "add", "faye", "--kind", "lightspark", "--import", osk, "--format", "lightspark-osk",
               "--node-password-fd", "0", "--out", folder, told=b"1234!@#$")
    variables = {"node_id": "LightsparkNodeWithOSK:1", "encoded_invoice": INVOICE, "timeout_secs": 60, "maximum_fees_msats": 1_000}
    ends = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    body = {"operationName": "PayInvoice", "query": PAY_INVOICE_MUTATION, "variables": variables, "nonce": 7, "expires_at": ends}
    body = json.dumps(body).encode()
    signature = b64decode(json.loads(ClavigerKey.open(folder).sign_payload(body))["signature"])
    key.public_key().verify(signature, body, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return len(signature) * 8


def main():
    events, commands = sys.argv[1], sys.argv[2:]
    # Lightspark's library writes a line for each event.
    report = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    events = [json.loads(line) for line in Path(events).read_text().splitlines()[-JOBS:]]
    keys = lightspark_crypto.LightsparkSigner.from_bytes(SEED, lightspark_crypto.Network.REGTEST)
    with tempfile.TemporaryDirectory() as work:
        lightspark = GraphQl(bytes.fromhex(keys.derive_public_key_hex("m/5")))
        signer = Signer(Path(work), lightspark.url)
        started = [signer.daemon]
        try:
            webhooks = f"https://127.0.0.1:{signer.webhooks}/ln/webhooks/acme"
            for count, command in enumerate(commands, 1):
                arguments = [signer.folder, lightspark.url, webhooks, INVOICE, TOO_MUCH, EXCHANGE]
                service = subprocess.Popen([*shlex.split(command), *arguments], stdout=subprocess.PIPE, text=True)
                started.append(service)
                said = service.stdout.readline().strip()
                assert "webhooks at" in said, f"{command}: {said or 'it ended'}"
                assert len(lightspark.moved) == 2 * count
                jobs = run_jobs(lightspark, int(said.split()[-1]), events)
                print(f"{Path(command.split()[-1]).name}: {said.split(';')[0]}; {jobs} jobs answered", file=report)
            print(f"called back: {run_callbacks(signer, lightspark, events[-60:])} jobs answered", file=report)
            print(f"an imported RSA key of {check_rsa(signer, Path(work))} bits signs", file=report)
            spent = signer.cli("policy", "status")["budgets"][0]["spent"]
            assert spent == 60_000, f"one invoice, paid by each service, counted {spent} msat"
        except BaseException:
            signer.log.seek(0)
            sys.stderr.write(signer.log.read()[-4000:])
            raise
        finally:
            for process in started:
                process.kill()
                process.wait()


main()
