package lnd

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/invoicesrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
)

// The channel survives restarts of lnd and of the signer, and a force close by either side with an HTLC in flight is
// swept to the wallet.
func TestChannelsSurviveRestartsAndForceClosesWithHtlcsInFlight(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	unlock := w.path("password")
	alice := w.watchOnly("alice", bundle, signer.lnd)
	bob := w.lnd("bob", "--noseedbackup")
	alice.ready()
	bobKey := bob.ready().IdentityPubkey
	_, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	w.mine(450, alice, bob)
	w.connect(alice, bob, bobKey)
	point := w.open(alice, bob, 1_000_000, 300_000)
	w.pay(alice, bob, 10_000)

	// Both restart, the signer by the hardest way.
	alice.stop()
	signer.kill()
	signer.run()
	w.must(writeFile(unlock, passphrase))
	alice.args = append(alice.args, "--wallet-unlock-password-file="+unlock)
	alice.run()
	alice.ready()
	w.connect(alice, bob, bobKey)
	w.pay(alice, bob, 10_000)
	w.pay(bob, alice, 10_000)

	// Our own commitment, with an HTLC each way.
	w.hold(alice, bob, 20_000, 1)
	w.hold(bob, alice, 30_000, 2)
	w.close(alice, point, true, alice, bob)

	// The counterparty's.
	point = w.open(alice, bob, 800_000, 300_000)
	w.pay(alice, bob, 10_000)
	w.hold(alice, bob, 20_000, 3)
	w.hold(bob, alice, 30_000, 4)
	w.close(bob, point, true, alice, bob)
	if !alice.isRunning() {
		t.Fatal("lnd ended")
	}
	signer.mustNotRefuse()
}

// Behind a socket that stays open, the signer is killed and comes back, and lnd does not notice: what it asks in between
// waits.
func TestLndGoesOnWhileItsSignerRestartsBehindASocket(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	signer.hold()
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.watchOnly("alice", bundle, signer.lnd)
	alice.ready()
	for range 3 {
		signer.kill()
		answered := make(chan error, 1)
		go func() {
			_, err := alice.SignMessage(w.ctx(), &lnrpc.SignMessageRequest{Msg: []byte("still here")})
			answered <- err
		}()
		signer.run()
		w.must(<-answered)
	}
	if !alice.isRunning() {
		t.Fatal("lnd ended")
	}
	signer.mustNotRefuse()
}

// A simple taproot channel would have its nonces made by lnd: it is declined, and lnd goes on.
func TestSimpleTaprootChannelsAreDeclinedAndLndGoesOn(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.watchOnly("alice", bundle, signer.lnd, "--protocol.simple-taproot-chans")
	bob := w.lnd("bob", "--noseedbackup", "--protocol.simple-taproot-chans")
	alice.ready()
	bobKey := bob.ready().IdentityPubkey
	_, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	w.mine(450, alice, bob)
	w.connect(alice, bob, bobKey)
	_, err = alice.OpenChannelSync(w.ctx(), &lnrpc.OpenChannelRequest{
		NodePubkeyString: bobKey, LocalFundingAmount: 500_000, SatPerVbyte: 2, Private: true,
		CommitmentType: lnrpc.CommitmentType_SIMPLE_TAPROOT,
	})
	if err == nil || !strings.Contains(err.Error(), "nonce-foreign") {
		t.Fatalf("the opening came to %v", err)
	}
	w.open(alice, bob, 500_000, 0)
	w.pay(alice, bob, 10_000)
}

// hold has HTLCs stay in flight, one for each number: their preimages are kept.
func (w *World) hold(from, to *Node, sat int64, numbers ...uint16) {
	w.t.Helper()
	hashOf := func(number uint16) []byte {
		hash := make([]byte, 32)
		binary.BigEndian.PutUint16(hash, number)
		return hash
	}
	for _, number := range numbers {
		invoice, err := invoicesrpc.NewInvoicesClient(to.conn).AddHoldInvoice(w.ctx(),
			&invoicesrpc.AddHoldInvoiceRequest{Hash: hashOf(number), Value: sat, CltvExpiry: 30})
		w.must(err)
		w.eventually("an HTLC is in flight", func() error {
			payment, err := routerrpc.NewRouterClient(from.conn).SendPaymentV2(w.ctx(), &routerrpc.SendPaymentRequest{
				PaymentRequest: invoice.PaymentRequest, TimeoutSeconds: 60, FeeLimitSat: 100,
			})
			w.must(err)
			for {
				update, err := payment.Recv()
				if err != nil {
					return err
				}
				if len(update.Htlcs) > 0 {
					return nil
				}
			}
		})
	}
	for _, number := range numbers {
		w.eventually("the invoice is held", func() error {
			found, err := to.LookupInvoice(w.ctx(), &lnrpc.PaymentHash{RHash: hashOf(number)})
			if err == nil && found.State != lnrpc.Invoice_ACCEPTED {
				err = errNotYet
			}
			return err
		})
	}
}
