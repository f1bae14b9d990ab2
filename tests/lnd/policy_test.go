package lnd

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
)

// putInForce applies the preset for routing nodes, with these destinations on a list.
func (s *Signer) putInForce(destinations ...string) {
	s.w.t.Helper()
	s.apply(s.newPolicy(), destinations)
}

// putInForceAllDay applies it for more than a day's work: its numbers for hours and days are ample.
func (s *Signer) putInForceAllDay(destinations ...string) {
	s.w.t.Helper()
	bundle := s.newPolicy()
	manifest := filepath.Join(bundle, "policy.toml")
	text, err := os.ReadFile(manifest)
	s.w.must(err)
	ofTime := regexp.MustCompile(`(?m)^((?:hourly|daily)_\w+) = .*$`)
	s.w.must(writeFile(manifest, ofTime.ReplaceAllString(string(text), "$1 = 1_000_000_000_000_000")))
	s.apply(bundle, destinations)
}

// putInForceWith applies it with these budgets and rules beside it.
func (s *Signer) putInForceWith(budgets, rules string) {
	s.w.t.Helper()
	bundle := s.newPolicy()
	manifest := filepath.Join(bundle, "policy.toml")
	text, err := os.ReadFile(manifest)
	s.w.must(err)
	s.w.must(writeFile(manifest, string(text)+budgets))
	s.w.must(writeFile(filepath.Join(bundle, "rules.cedar"), rules))
	s.apply(bundle, nil)
}

func (s *Signer) newPolicy() string {
	s.w.t.Helper()
	bundle := s.w.path("policy")
	s.cli("", "policy", "init", bundle, "--preset", "routing-node")
	return bundle
}

func (s *Signer) apply(bundle string, destinations []string) {
	s.w.t.Helper()
	var list strings.Builder
	for _, address := range destinations {
		fmt.Fprintf(&list, "[[destination]]\nlabel = \"known\"\naddress = %q\n", address)
	}
	if len(destinations) > 0 {
		s.w.must(os.MkdirAll(filepath.Join(bundle, "lists"), 0o700))
		s.w.must(writeFile(filepath.Join(bundle, "lists", "known.toml"), list.String()))
	}
	s.cli("", "policy", "apply", bundle)
}

// Under the preset for routing nodes a stock lnd does what such a node does; what the policy forbids is refused with its
// reason, and lnd goes on.
func TestPolicyHoldsAndLndGoesOn(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.watchOnly("alice", bundle, signer.lnd)
	bob := w.lnd("bob", "--noseedbackup")
	alice.ready()
	bobKey := bob.ready().IdentityPubkey
	_, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	listed, err := bob.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_TAPROOT_PUBKEY})
	w.must(err)
	unlisted, err := bob.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_TAPROOT_PUBKEY})
	w.must(err)
	w.mine(450, alice, bob)
	signer.putInForce(listed.Address)
	w.connect(alice, bob, bobKey)

	refused := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "claviger refused (policy-") {
			t.Fatalf("%s came to %v", what, err)
		}
		if !alice.isRunning() {
			t.Fatalf("lnd ended after %s", what)
		}
	}

	// Destinations.
	_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: unlisted.Address, Amount: 100_000, SatPerVbyte: 2})
	refused("a send to an unlisted address", err)
	_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: listed.Address, Amount: 2_000_000, SatPerVbyte: 2})
	w.must(err)
	w.mine(1, alice, bob)

	// A gift to the peer, and a channel above the limit.
	for _, open := range []*lnrpc.OpenChannelRequest{
		{LocalFundingAmount: 1_000_000, PushSat: 100_000},
		{LocalFundingAmount: 6_000_000},
	} {
		open.NodePubkeyString, open.SatPerVbyte = bobKey, 2
		_, err = alice.OpenChannelSync(w.ctx(), open)
		refused("an open", err)
	}
	point := w.open(alice, bob, 1_000_000, 0)
	for range 3 {
		w.pay(alice, bob, 50_000)
		w.pay(bob, alice, 5_000)
	}

	// A text is signed by no rule of the preset.
	_, err = alice.SignMessage(w.ctx(), &lnrpc.SignMessageRequest{Msg: []byte("it is me")})
	refused("a text", err)

	w.close(alice, point, false, alice, bob)
	point = w.open(alice, bob, 1_000_000, 0)
	w.pay(alice, bob, 50_000)
	w.hold(alice, bob, 20_000, 1)
	w.close(alice, point, true, alice, bob)
	if !alice.isRunning() {
		t.Fatal("lnd ended")
	}
	for _, decision := range signer.decisions() {
		if string(decision.Verdict) != `"permit"` && !strings.Contains(string(decision.Verdict), "policy-") {
			t.Errorf("an honest lnd was refused: %s %s", decision.Request, decision.Verdict)
		}
	}
}
