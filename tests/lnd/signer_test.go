package lnd

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Signer is a running claviger.
type Signer struct {
	*Process
	w    *World
	bin  string
	data string
	lnd  string
	// What systemd would hold, if it does.
	socket *os.File
}

// signer makes a data directory with these lines in the sections of its configuration, and runs claviger on it.
func (w *World) signer(limits string) *Signer {
	w.t.Helper()
	bin := os.Getenv("CLAVIGER_BIN")
	if bin == "" {
		w.t.Fatal("CLAVIGER_BIN is not set: start these tests with tests/lnd/run")
	}
	s := &Signer{w: w, bin: bin, data: w.path("claviger"), lnd: freeAddress(w.t)}
	s.cli(passphrase, "init", "--network", "regtest", "--preset", "none", "--kdf-memory-kib", "8", "--kdf-passes", "1", "--passphrase-fd", "0")
	w.must(os.WriteFile(w.path("no-password"), []byte("p\n"), 0o600))
	// lnd's keys need no view of the chain: nobody answers there.
	conf := fmt.Sprintf("network = \"regtest\"\n[signer]\nallow_root = true\n[policy]\npreset = \"none\"\n[link]\nlisten = %q\n[lnd]\nlisten = %q\n[chain]\nurl = %q\nuser = \"u\"\n"+
		"password_file = %q\n[limits]\n%s\n", freeAddress(w.t), s.lnd, "http://"+freeAddress(w.t), w.path("no-password"), limits)
	w.must(os.WriteFile(filepath.Join(s.data, "claviger.toml"), []byte(conf), 0o600))
	s.run()
	return s
}

// run starts claviger, again if it ran before.
func (s *Signer) run() {
	command := []string{s.bin, "--data-dir", s.data, "run", "--passphrase-fd", "0"}
	if s.socket == nil {
		s.Process = s.w.start("claviger", command[0], passphrase, command[1:]...)
	} else {
		shell := []string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"`, "sh"}
		s.Process = s.w.startWith([]*os.File{s.socket}, "claviger", "/bin/sh", passphrase, append(shell, command...)...)
	}
	s.w.eventually("claviger answers lnd", func() error {
		// Whose certificate it is does not matter here.
		conn, err := tls.Dial("tcp", s.lnd, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// hold keeps the socket of lnd's door open from now on, as systemd does: it is handed to claviger when that runs again.
func (s *Signer) hold() {
	s.w.t.Helper()
	s.stop()
	listener, err := net.Listen("tcp", s.lnd)
	s.w.must(err)
	s.w.t.Cleanup(func() { listener.Close() })
	s.socket, err = listener.(*net.TCPListener).File()
	s.w.must(err)
	s.run()
}

// cli runs one command and returns what it prints.
func (s *Signer) cli(stdin string, args ...string) string {
	s.w.t.Helper()
	out, err := s.tryCli(stdin, args...)
	if err != nil {
		s.w.t.Fatalf("claviger %v: %v\n%s", args, err, out)
	}
	return out
}

// tryCli runs one command that may fail.
func (s *Signer) tryCli(stdin string, args ...string) (string, error) {
	command := exec.Command(s.bin, append([]string{"--data-dir", s.data}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.CombinedOutput()
	return string(out), err
}

// add makes keys for a node and returns the folder of its bundle.
func (s *Signer) add(name string) string {
	folder := s.w.path(name + ".lnd")
	s.cli("", "node", "add", name, "--kind", "lnd", "--out", folder)
	return folder
}

// Decision is a line of the journal.
type Decision struct {
	Request string
	Action  string
	// "permit", or an object with the name of what it is instead.
	Verdict json.RawMessage
	Facts   []struct {
		Name  string
		Value any
	}
}

// decisions reads the whole journal.
func (s *Signer) decisions() []Decision {
	s.w.t.Helper()
	var all []Decision
	for _, line := range strings.Split(strings.TrimSpace(s.cli("", "journal", "export")), "\n") {
		var decision Decision
		s.w.must(json.Unmarshal([]byte(line), &decision))
		all = append(all, decision)
	}
	return all
}

// mustNotRefuse fails the test if anything was refused: an honest lnd asks for nothing else.
func (s *Signer) mustNotRefuse() {
	s.w.t.Helper()
	for _, decision := range s.decisions() {
		if string(decision.Verdict) != `"permit"` {
			s.w.t.Errorf("an honest lnd was refused: %s %s: %s %v", decision.Request, decision.Action, decision.Verdict, decision.Facts)
		}
	}
}

// signed counts the signatures on transactions of a class.
func (s *Signer) signed(class string) int {
	s.w.t.Helper()
	count := 0
	for _, decision := range s.decisions() {
		for _, fact := range decision.Facts {
			if fact.Name == "class" && fact.Value == class && string(decision.Verdict) == `"permit"` {
				count++
			}
		}
	}
	return count
}
