package lnd

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
)

const manyPayments = 200

// Channels opened from either side carry forwards and many payments at once; a signer that is killed in the midst of
// them costs nothing but a restart; and the peer that publishes an old state loses everything.
func TestRoutingUnderLoadAndJustice(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.watchOnly("alice", bundle, signer.lnd)
	bob := w.lnd("bob", "--noseedbackup")
	carol := w.lnd("carol", "--noseedbackup")
	aliceKey := alice.ready().IdentityPubkey
	bob.ready()
	carolKey := carol.ready().IdentityPubkey
	_, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	w.mine(450, alice, bob, carol)
	coins, err := bob.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: coins.Address, Amount: 5_000_000, SatPerVbyte: 2})
	w.must(err)
	w.mine(1, alice, bob, carol)

	// One channel from the other side, one from ours.
	w.connect(bob, alice, aliceKey)
	w.connect(alice, carol, carolKey)
	breached := w.open(bob, alice, 2_000_000, 1_000_000)
	w.open(alice, carol, 1_000_000, 500_000)
	for _, node := range []*Node{bob, carol} {
		w.eventually(node.name+" knows both channels", func() error {
			graph, err := node.DescribeGraph(w.ctx(), &lnrpc.ChannelGraphRequest{})
			if err == nil && len(graph.Edges) != 2 {
				err = errNotYet
			}
			return err
		})
	}
	w.pay(bob, carol, 20_000)
	w.pay(carol, bob, 10_000)

	// Many at once, both ways.
	var all sync.WaitGroup
	failed := make(chan error, manyPayments)
	for n := range manyPayments {
		from, to := alice, bob
		if n%2 == 1 {
			from, to = bob, alice
		}
		all.Add(1)
		go func() {
			defer all.Done()
			if err := w.payOnce(from, to, 1_000); err != nil {
				failed <- err
			}
		}()
	}
	all.Wait()
	close(failed)
	for err := range failed {
		t.Errorf("a payment failed: %v", err)
	}
	if log := signer.cli("", "journal", "tail", "--lines", "20000"); strings.Contains(log, "deny") {
		t.Fatalf("an honest lnd was refused:\n%s", log)
	}

	// The signer is killed under load. A stock lnd ends then; both come back and the channels go on.
	for range 20 {
		all.Add(1)
		go func() { defer all.Done(); _ = w.payOnce(alice, bob, 1_000) }()
	}
	w.must(signer.Process.Process.Kill())
	<-signer.done
	alice.stop()
	all.Wait()
	signer.run()
	unlock := w.path("password")
	w.must(writeFile(unlock, passphrase))
	alice.args = append(alice.args, "--wallet-unlock-password-file="+unlock)
	alice.run()
	alice.ready()
	w.connect(bob, alice, aliceKey)
	w.pay(alice, bob, 10_000)

	// Bob keeps a copy of a state in which he owns more, and publishes it when alice is away.
	bob.stop()
	w.must(os.CopyFS(w.path("bob-old"), os.DirFS(w.path("bob"))))
	bob.run()
	bob.ready()
	w.connect(bob, alice, aliceKey)
	w.pay(bob, alice, 200_000)
	before := w.confirmed(alice)
	alice.stop()
	bob.stop()
	w.must(os.RemoveAll(w.path("bob")))
	w.must(os.Rename(w.path("bob-old"), w.path("bob")))
	bob.run()
	bob.ready()
	closing, err := bob.CloseChannel(w.ctx(), &lnrpc.CloseChannelRequest{ChannelPoint: breached, Force: true, NoWait: true})
	w.must(err)
	_, err = closing.Recv()
	w.must(err)
	w.must(w.chain("generate", nil, 1))
	alice.run()
	alice.ready()
	w.eventually("alice has punished bob", func() error {
		w.mine(1, alice)
		if gained := w.confirmed(alice) - before; gained < 1_900_000 {
			return fmt.Errorf("alice has %d sat more", gained)
		}
		return nil
	})
	log := signer.cli("", "journal", "tail", "--lines", "20000")
	if !strings.Contains(log, "justice") || strings.Contains(log, "deny") {
		t.Fatalf("the journal names no justice, or a refusal:\n%s", log)
	}
}

// payOnce pays a new invoice and says why it failed.
func (w *World) payOnce(from, to *Node, sat int64) error {
	invoice, err := to.AddInvoice(w.ctx(), &lnrpc.Invoice{Value: sat})
	if err != nil {
		return err
	}
	payment, err := routerrpc.NewRouterClient(from.conn).SendPaymentV2(w.ctx(), &routerrpc.SendPaymentRequest{
		PaymentRequest: invoice.PaymentRequest, TimeoutSeconds: 50, FeeLimitSat: 100, NoInflightUpdates: true,
	})
	if err != nil {
		return err
	}
	outcome, err := payment.Recv()
	if err == io.EOF || err == nil && outcome.Status != lnrpc.Payment_SUCCEEDED {
		return fmt.Errorf("%s to %s: %v", from.name, to.name, outcome.GetFailureReason())
	}
	return err
}

func (w *World) confirmed(node *Node) int64 {
	balance, err := node.WalletBalance(w.ctx(), &lnrpc.WalletBalanceRequest{})
	w.must(err)
	return balance.ConfirmedBalance
}
