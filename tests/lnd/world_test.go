// Package lnd runs real lnd nodes whose keys are in a real claviger process, on a btcd chain of their own.
package lnd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/btcsuite/btcd/btcutil"
	"github.com/btcsuite/btcd/btcutil/hdkeychain"
	"github.com/btcsuite/btcd/chaincfg"
	"github.com/lightningnetwork/lnd/lnrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const passphrase = "correct horse battery staple"

// World is a chain and the processes on it. They end with the test, and their logs are shown if it fails.
type World struct {
	t     testing.TB
	dir   string
	btcd  string // host:port of its JSON-RPC
	tools string
	// The lnd that keeps its keys in the signer.
	underTest string
	processes []*Process
}

// Process is one of them.
type Process struct {
	*exec.Cmd
	name string
	log  string
	done chan struct{}
	// The test ended it.
	ended bool
}

func newWorld(t testing.TB) *World {
	tools := os.Getenv("LND_TESTS_BIN")
	if tools == "" {
		t.Fatal("LND_TESTS_BIN is not set: start these tests with tests/lnd/run")
	}
	underTest := os.Getenv("LND_TESTS_LND")
	if underTest == "" {
		underTest = tools
	}
	return &World{t: t, dir: t.TempDir(), btcd: freeAddress(t), tools: tools, underTest: underTest}
}

// start runs a program until the test ends.
func (w *World) start(name, program string, stdin string, args ...string) *Process {
	w.t.Helper()
	return w.startWith(nil, name, program, stdin, args...)
}

// startWith hands the program files as well, from descriptor 3 on.
func (w *World) startWith(files []*os.File, name, program string, stdin string, args ...string) *Process {
	w.t.Helper()
	p := &Process{Cmd: exec.Command(program, args...), name: name, log: w.path(name + ".log"), done: make(chan struct{})}
	w.processes = append(w.processes, p)
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.must(err)
	p.ExtraFiles = files
	p.Stdout, p.Stderr, p.Stdin = log, log, strings.NewReader(stdin)
	w.must(p.Start())
	go func() { _ = p.Wait(); log.Close(); close(p.done) }()
	w.t.Cleanup(func() {
		p.stop()
		if w.t.Failed() {
			w.t.Logf("---- the end of %s's log\n%s", name, p.tail(8000))
		}
	})
	return p
}

// stop ends the process and waits for it.
func (p *Process) stop() {
	p.ended = true
	_ = p.Process.Signal(os.Interrupt)
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		_ = p.Process.Kill()
		<-p.done
	}
}

// kill ends the process as a loss of power would.
func (p *Process) kill() {
	p.ended = true
	_ = p.Process.Kill()
	<-p.done
}

// tail is the end of what the process wrote.
func (p *Process) tail(bytes int) string {
	text, _ := os.ReadFile(p.log)
	return string(text[max(0, len(text)-bytes):])
}

func (p *Process) isRunning() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (w *World) startChain(miningAddress string) *Process {
	p := w.start("btcd", filepath.Join(w.tools, "btcd"), "", "--regtest", "--txindex", "--datadir="+w.path("btcd"),
		"--logdir="+w.path("btcd-log"), "--rpcuser=u", "--rpcpass=p", "--rpclisten="+w.btcd, "--listen="+freeAddress(w.t),
		"--rpccert="+w.path("btcd.cert"), "--rpckey="+w.path("btcd.key"), "--miningaddr="+miningAddress,
		"--nobanning", "--nostalldetect", "--rpcmaxwebsockets=100", "--configfile="+w.path("none.conf"))
	w.eventually("btcd answers", func() error { return w.chain("getblockcount", nil) })
	return p
}

// mine adds blocks and waits until the nodes have seen them.
func (w *World) mine(blocks int, nodes ...*Node) {
	w.t.Helper()
	w.must(w.chain("generate", nil, blocks))
	var height uint32
	w.must(w.chain("getblockcount", &height))
	for _, node := range nodes {
		w.eventually(node.name+" sees the blocks", func() error {
			info, err := node.GetInfo(w.ctx(), &lnrpc.GetInfoRequest{})
			if err == nil && (info.BlockHeight < height || !info.SyncedToChain) {
				err = fmt.Errorf("at height %d of %d, synced %v", info.BlockHeight, height, info.SyncedToChain)
			}
			return err
		})
	}
}

// chain calls btcd.
func (w *World) chain(method string, result any, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "1.0", "id": 1, "method": method, "params": params})
	w.must(err)
	request, err := http.NewRequest(http.MethodPost, "https://"+w.btcd, bytes.NewReader(body))
	w.must(err)
	request.SetBasicAuth("u", "p")
	// The chain is ours, on this machine.
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	reply, err := client.Do(request)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Result json.RawMessage
		Error  any
	}{}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Error != nil {
		return fmt.Errorf("%s: %v %v", method, err, answer.Error)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Result, result)
}

// Node is an lnd.
type Node struct {
	lnrpc.LightningClient
	*Process
	name    string
	program string
	conn    *grpc.ClientConn
	rpc     string
	p2p     string
	args    []string
	w       *World
}

// lnd starts an lnd with keys of its own.
func (w *World) lnd(name string, args ...string) *Node {
	w.t.Helper()
	return w.lndFrom(w.tools, name, args...)
}

// lndUnderTest starts an lnd of the version under test. It is not unlocked yet.
func (w *World) lndUnderTest(name string, args ...string) *Node {
	w.t.Helper()
	return w.lndFrom(w.underTest, name, args...)
}

func (w *World) lndFrom(folder, name string, args ...string) *Node {
	w.t.Helper()
	n := &Node{name: name, program: filepath.Join(folder, "lnd"), rpc: freeAddress(w.t), p2p: freeAddress(w.t), w: w}
	n.args = append([]string{
		"--lnddir=" + w.path(name), "--bitcoin.regtest", "--bitcoin.node=btcd", "--btcd.rpchost=" + w.btcd,
		"--btcd.rpcuser=u", "--btcd.rpcpass=p", "--btcd.rpccert=" + w.path("btcd.cert"), "--rpclisten=" + n.rpc,
		"--norest", "--listen=" + n.p2p, "--nobootstrap", "--debuglevel=info", "--trickledelay=50", "--no-macaroons",
		"--bitcoin.defaultchanconfs=1", "--bitcoin.defaultremotedelay=4",
	}, args...)
	n.run()
	return n
}

// run starts the process, again if it ran before, and connects to it.
func (n *Node) run() {
	n.Process = n.w.start(n.name, n.program, "", n.args...)
	n.w.eventually(n.name+" writes its certificate", func() error {
		creds, err := credentials.NewClientTLSFromFile(filepath.Join(n.w.path(n.name), "tls.cert"), "")
		if err != nil {
			return err
		}
		n.conn, err = grpc.NewClient(n.rpc, grpc.WithTransportCredentials(creds))
		return err
	})
	n.LightningClient = lnrpc.NewLightningClient(n.conn)
	n.w.t.Cleanup(func() { n.conn.Close() })
}

// ready waits until the node is up.
func (n *Node) ready() *lnrpc.GetInfoResponse {
	n.w.t.Helper()
	var info *lnrpc.GetInfoResponse
	n.w.eventually(n.name+" is ready", func() error {
		var err error
		info, err = n.GetInfo(n.w.ctx(), &lnrpc.GetInfoRequest{})
		if err == nil && !info.SyncedToChain {
			err = fmt.Errorf("not synced, at height %d", info.BlockHeight)
		}
		return err
	})
	return info
}

type account struct {
	XPub string `json:"extended_public_key"`
	Path string `json:"derivation_path"`
}

func (w *World) accounts(bundle string) []account {
	text, err := os.ReadFile(filepath.Join(bundle, "accounts.json"))
	w.must(err)
	file := struct{ Accounts []account }{}
	w.must(json.Unmarshal(text, &file))
	return file.Accounts
}

// firstAddress is the first address of the wallet whose accounts are in the bundle.
func (w *World) firstAddress(bundle string) string {
	for _, account := range w.accounts(bundle) {
		if account.Path == "m/84'/0'/0'" {
			key, err := hdkeychain.NewKeyFromString(account.XPub)
			w.must(err)
			for range 2 {
				key, err = key.Derive(0)
				w.must(err)
			}
			public, err := key.ECPubKey()
			w.must(err)
			hash := btcutil.Hash160(public.SerializeCompressed())
			address, err := btcutil.NewAddressWitnessPubKeyHash(hash, &chaincfg.RegressionNetParams)
			w.must(err)
			return address.EncodeAddress()
		}
	}
	w.t.Fatal("there is no such account")
	return ""
}

// watchOnly starts an lnd whose keys are in the signer, with a wallet of their public halves.
func (w *World) watchOnly(name, bundle, signer string, args ...string) *Node {
	w.t.Helper()
	n := w.lndUnderTest(name, append([]string{
		"--remotesigner.enable", "--remotesigner.rpchost=" + signer, "--remotesigner.timeout=10s",
		"--remotesigner.tlscertpath=" + filepath.Join(bundle, "tls.cert"),
		"--remotesigner.macaroonpath=" + filepath.Join(bundle, "lnd.macaroon"),
	}, args...)...)
	n.initWallet(bundle)
	return n
}

// initWallet makes the wallet of the public halves in a bundle.
func (n *Node) initWallet(bundle string) {
	w := n.w
	w.t.Helper()
	request := &lnrpc.InitWalletRequest{WalletPassword: []byte(passphrase), WatchOnly: &lnrpc.WatchOnly{
		MasterKeyBirthdayTimestamp: uint64(time.Now().Add(-24 * time.Hour).Unix()),
	}}
	for _, account := range w.accounts(bundle) {
		var purpose, coin, number uint32
		_, err := fmt.Sscanf(account.Path, "m/%d'/%d'/%d'", &purpose, &coin, &number)
		w.must(err)
		request.WatchOnly.Accounts = append(request.WatchOnly.Accounts,
			&lnrpc.WatchOnlyAccount{Purpose: purpose, CoinType: coin, Account: number, Xpub: account.XPub})
	}
	w.eventually(n.name+" makes its wallet", func() error {
		_, err := lnrpc.NewWalletUnlockerClient(n.conn).InitWallet(w.ctx(), request)
		return err
	})
}

func (w *World) path(name string) string { return filepath.Join(w.dir, name) }

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *World) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	w.t.Cleanup(cancel)
	return ctx
}

// eventually waits until the condition holds; the time is long because machines are shared. If a process ends by itself
// meanwhile, or ended before, there is nothing to wait for.
func (w *World) eventually(what string, holds func() error) {
	w.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		err := holds()
		if err == nil {
			return
		}
		for _, p := range w.processes {
			if !p.ended && !p.isRunning() {
				w.t.Fatalf("in vain: %s: %s ended by itself (%v); it last wrote\n%s", what, p.name, p.ProcessState, p.tail(2000))
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not in time: %s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

var errNotYet = errors.New("not yet")

func writeFile(path, text string) error { return os.WriteFile(path, []byte(text), 0o600) }

func freeAddress(t testing.TB) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
