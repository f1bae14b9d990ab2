package lnd

import (
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

	unlock := w.path("password")
	w.must(writeFile(unlock, passphrase))
	alice.args = append(alice.args, "--wallet-unlock-password-file="+unlock, "--remotesigner.enable",
		"--remotesigner.rpchost="+signer.lnd, "--remotesigner.timeout=10s", "--remotesigner.migrate-wallet-to-watch-only",
		"--remotesigner.tlscertpath="+filepath.Join(bundle, "tls.cert"),
		"--remotesigner.macaroonpath="+filepath.Join(bundle, "lnd.macaroon"))
	alice.run()
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
