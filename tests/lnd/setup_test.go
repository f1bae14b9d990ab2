package lnd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The address of lnd's gRPC that the commands of docs/lnd.md expect.
const defaultRPC = "127.0.0.1:10009"

// The six commands of docs/lnd.md, run as they stand there on a fresh data directory, pair a real lnd.
func TestTheDocumentedCommandsPairAnLnd(t *testing.T) {
	commands := documented(t)
	if len(commands) != 6 {
		t.Fatalf("docs/lnd.md has %d commands: %q", len(commands), commands)
	}
	if listener, err := net.Listen("tcp", defaultRPC); err != nil {
		t.Fatalf("an lnd runs here already: %v", err)
	} else {
		listener.Close()
	}
	w := newWorld(t)
	home := w.path("home")
	programs := w.path("programs")
	for _, dir := range []string{home, filepath.Join(home, ".lnd"), programs} {
		w.must(os.Mkdir(dir, 0o700))
	}
	signer := os.Getenv("CLAVIGER_BIN")
	w.must(os.Symlink(signer, filepath.Join(programs, "claviger")))
	// lnd asks the system for its user's home, whatever HOME says.
	lnd := fmt.Sprintf("#!/bin/sh\nfolder=$HOME/.lnd\nexec %s --lnddir=\"$folder\" "+
		"--remotesigner.tlscertpath=\"$folder/claviger/tls.cert\" --remotesigner.macaroonpath=\"$folder/claviger/lnd.macaroon\"\n",
		filepath.Join(w.underTest, "lnd"))
	w.must(os.WriteFile(filepath.Join(programs, "lnd"), []byte(lnd), 0o700))
	// LND-HOST is this machine.
	scp := "#!/bin/sh\nset -eu\nexec cp \"$1\" \"$2\" \"$HOME/${3#LND-HOST:}\"\n"
	w.must(os.WriteFile(filepath.Join(programs, "scp"), []byte(scp), 0o700))
	environment := append(os.Environ(), "HOME="+home, "PATH="+programs+":"+os.Getenv("PATH"))
	shell := func(command string) *exec.Cmd {
		shell := exec.Command("/bin/sh", "-euc", command)
		shell.Dir, shell.Env = home, environment
		return shell
	}
	run := func(command string) {
		t.Helper()
		if out, err := shell(command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}

	// What is there before: a data directory, passwords, and an lnd.conf for the chain.
	w.must(writeFile(filepath.Join(home, "passphrase"), passphrase))
	w.must(writeFile(filepath.Join(home, "wallet-password"), passphrase))
	run("claviger init --network regtest --kdf-memory-kib 8 --kdf-passes 1 --passphrase-fd 0 < passphrase")
	door := freeAddress(t)
	conf := fmt.Sprintf("network = \"regtest\"\n[signer]\nallow_root = true\n[link]\nlisten = %q\n[lnd]\nlisten = %q\n[chain]\nurl = %q\nuser = \"u\"\n"+
		"password_file = %q\n", freeAddress(t), door, "http://"+freeAddress(t), filepath.Join(home, "passphrase"))
	w.must(writeFile(filepath.Join(home, ".claviger", "claviger.toml"), conf))
	btcd := w.startChain("bcrt1qndus7l80wlr94fg7mc8z58g9f5eqwm4slra0p7")
	w.must(w.chain("generate", nil, 1))
	p2p := freeAddress(t)
	w.must(writeFile(filepath.Join(home, ".lnd", "lnd.conf"), fmt.Sprintf("[Application Options]\nlisten=%s\nnorest=true\n"+
		"nobootstrap=true\n[Bitcoin]\nbitcoin.regtest=true\nbitcoin.node=btcd\n[Btcd]\nbtcd.rpchost=%s\nbtcd.rpcuser=u\n"+
		"btcd.rpcpass=p\nbtcd.rpccert=%s\n", p2p, w.btcd, w.path("btcd.cert"))))

	for _, command := range commands {
		// What goes on runs; what follows waits until it answers.
		switch {
		case strings.HasPrefix(command, "claviger run"):
			w.start("claviger", "/bin/sh", "", "-c", inHome(home, programs, command))
			w.eventually("claviger answers lnd", func() error { return dial(door) })
		case command == "lnd":
			w.start("lnd", "/bin/sh", "", "-c", inHome(home, programs, command))
			w.eventually("lnd answers", func() error { return dial(defaultRPC) })
		default:
			run(command)
		}
	}

	cli := fmt.Sprintf("%s --lnddir=%s --network=regtest getinfo", filepath.Join(w.tools, "lncli"), filepath.Join(home, ".lnd"))
	var info string
	w.eventually("lnd has its wallet and is in step with the chain", func() error {
		out, err := shell(cli).CombinedOutput()
		if info = string(out); err != nil || !strings.Contains(info, `"synced_to_chain":  true`) {
			return fmt.Errorf("%v %s", err, info)
		}
		return nil
	})
	shown, err := shell("claviger --json node show alice").Output()
	w.must(err)
	_, key, _ := strings.Cut(info, `"identity_pubkey":  "`)
	if len(key) < 66 || !strings.Contains(string(shown), key[:66]) {
		t.Fatalf("lnd says\n%s\nand the signer\n%s", info, shown)
	}
	if !btcd.isRunning() {
		t.Fatal("btcd ended")
	}

	// A second wallet is refused with what to do.
	out, err := shell(commands[5]).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "hint:") {
		t.Fatalf("a second init-wallet came to %v\n%s", err, out)
	}
}

// documented are the commands of the set-up, without their comments.
func documented(t *testing.T) []string {
	text, err := os.ReadFile("../../docs/lnd.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```sh\n")
	block, _, _ = strings.Cut(block, "```")
	var commands []string
	for _, line := range strings.Split(strings.TrimSpace(block), "\n") {
		command, _, _ := strings.Cut(line, " #")
		commands = append(commands, strings.TrimSpace(command))
	}
	return commands
}

// inHome is a command line that starts a program in place of the shell, with this home and these programs.
func inHome(home, programs, command string) string {
	return fmt.Sprintf("cd %[1]s && export HOME=%[1]s PATH=%[2]s:$PATH && exec %[3]s", home, programs, command)
}

func dial(address string) error {
	conn, err := net.Dial("tcp", address)
	if err == nil {
		conn.Close()
	}
	return err
}
