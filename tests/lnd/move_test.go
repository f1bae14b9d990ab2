package lnd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
)

// Made by lnd.
const (
	seedWords = "ability rival catalog wall book sight lawn cliff olympic coin feature student expose average kitchen gap " +
		"brain vacuum female please agent beauty stove birth"
	seedPassphrase = "a horse, a kingdom"
)

// addSeeded adds a node with the keys of seedWords and returns its bundle.
func (s *Signer) addSeeded(name string) string {
	s.w.t.Helper()
	words, bundle := s.w.path("words"), s.w.path(name+".lnd")
	s.w.must(writeFile(words, seedWords))
	s.cli(seedPassphrase, "node", "add", name, "--kind", "lnd", "--out", bundle,
		"--import", words, "--format", "aezeed", "--mnemonic-passphrase-fd", "0")
	return bundle
}

// makeSeededWallet has an lnd keep the same keys itself.
func (n *Node) makeSeededWallet() {
	n.w.t.Helper()
	n.w.eventually("an lnd makes a wallet of the seed", func() error {
		_, err := lnrpc.NewWalletUnlockerClient(n.conn).InitWallet(n.w.ctx(), &lnrpc.InitWalletRequest{
			WalletPassword: []byte(passphrase), CipherSeedMnemonic: strings.Fields(seedWords),
			AezeedPassphrase: []byte(seedPassphrase),
		})
		return err
	})
}

// An lnd that kept its own keys moves them to the signer by its 24 words and their passphrase: it stays the node it was,
// its coins stay its own, and it opens channels.
func TestLndMovesToTheSignerWithItsSeed(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.addSeeded("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))

	alice := w.lndUnderTest("alice")
	alice.makeSeededWallet()
	before := alice.ready()
	address, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	if expected := w.firstAddress(bundle); address.Address != expected {
		t.Fatalf("lnd's first address is %s, the signer's %s", address.Address, expected)
	}
	w.mine(450, alice)
	alice.stop()

	alice.moveToSigner(signer, bundle)
	if after := alice.ready(); after.IdentityPubkey != before.IdentityPubkey {
		t.Fatalf("the node was %s and is %s", before.IdentityPubkey, after.IdentityPubkey)
	}

	bob := w.lnd("bob", "--noseedbackup")
	bobKey := bob.ready().IdentityPubkey
	w.connect(alice, bob, bobKey)
	point := w.open(alice, bob, 1_000_000, 100_000)
	w.pay(alice, bob, 10_000)
	w.close(alice, point, false, alice, bob)
	signer.mustNotRefuse()
}

// moveToSigner starts an lnd again that has stopped: from now on its keys are in the signer.
func (n *Node) moveToSigner(signer *Signer, bundle string) {
	w := n.w
	w.t.Helper()
	unlock := w.path("password")
	w.must(writeFile(unlock, passphrase))
	n.args = append(n.args, "--wallet-unlock-password-file="+unlock, "--remotesigner.enable",
		"--remotesigner.rpchost="+signer.lnd, "--remotesigner.timeout=10s", "--remotesigner.migrate-wallet-to-watch-only",
		"--remotesigner.tlscertpath="+filepath.Join(bundle, "tls.cert"),
		"--remotesigner.macaroonpath="+filepath.Join(bundle, "lnd.macaroon"))
	n.run()
}

// An lnd moves with channels that are open: the signer takes them over from lnd's static channel backup, and from no other
// file. They go on, one closes by agreement and one by force.
func TestLndMovesToTheSignerWithOpenChannels(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.addSeeded("alice")
	signer.add("mallory")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.lndUnderTest("alice")
	alice.makeSeededWallet()
	bob := w.lnd("bob", "--noseedbackup")
	aliceKey := alice.ready().IdentityPubkey
	bobKey := bob.ready().IdentityPubkey
	_, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	w.mine(450, alice, bob)
	coins, err := bob.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: coins.Address, Amount: 5_000_000, SatPerVbyte: 2})
	w.must(err)
	w.mine(1, alice, bob)
	w.connect(alice, bob, bobKey)
	opened := w.open(alice, bob, 1_000_000, 400_000)
	accepted := w.open(bob, alice, 800_000, 300_000)
	for range 5 {
		w.pay(alice, bob, 10_000)
		w.pay(bob, alice, 5_000)
	}
	alice.stop()

	regtest := filepath.Join("data", "chain", "bitcoin", "regtest", "channel.backup")
	backup := filepath.Join(w.path("alice"), regtest)
	bytes, err := os.ReadFile(backup)
	w.must(err)
	forged := w.path("forged.backup")
	bytes[len(bytes)/2] ^= 1
	w.must(os.WriteFile(forged, bytes, 0o600))
	for _, hostile := range [][2]string{{"alice", forged}, {"alice", filepath.Join(w.path("bob"), regtest)}, {"mallory", backup}} {
		if out, err := signer.tryCli("", "lnd", "adopt", hostile[0], hostile[1]); err == nil || !strings.Contains(out, "not this node's backup") {
			t.Fatalf("%v came to %v\n%s", hostile, err, out)
		}
	}
	out := signer.cli("", "lnd", "adopt", "alice", backup)
	for _, point := range []*lnrpc.ChannelPoint{opened, accepted} {
		if !strings.Contains(out, "adopted  "+text(point)) {
			t.Fatalf("claviger lnd adopt says\n%s", out)
		}
	}

	alice.moveToSigner(signer, bundle)
	if after := alice.ready(); after.IdentityPubkey != aliceKey {
		t.Fatalf("the node was %s and is %s", aliceKey, after.IdentityPubkey)
	}
	w.connect(alice, bob, bobKey)
	for range 3 {
		w.pay(alice, bob, 10_000)
		w.pay(bob, alice, 5_000)
	}
	w.close(alice, opened, false, alice, bob)
	w.close(alice, accepted, true, alice, bob)
	signer.mustNotRefuse()
	if !alice.isRunning() {
		t.Fatal("lnd ended")
	}
}
