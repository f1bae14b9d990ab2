package lnd

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"github.com/lightningnetwork/lnd/lnrpc/watchtowerrpc"
	"github.com/lightningnetwork/lnd/lnrpc/wtclientrpc"
)

const manyPayments = 200

// Channels opened from either side carry forwards and many payments at once; a signer that is killed in the midst of
// them costs nothing but a restart; and the peer that publishes an old state loses everything, to alice or, while she is
// away, to her watchtower.
func TestRoutingUnderLoadAndJustice(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	tower := freeAddress(t)
	alice := w.watchOnly("alice", bundle, signer.lnd, "--wtclient.active")
	bob := w.lnd("bob", "--noseedbackup")
	carol := w.lnd("carol", "--noseedbackup", "--watchtower.active", "--watchtower.listen="+tower)
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
	w.watch(alice, carol, tower)

	// Two channels from the other side, one from ours.
	w.connect(bob, alice, aliceKey)
	w.connect(alice, carol, carolKey)
	breached := w.open(bob, alice, 2_000_000, 1_000_000)
	second := w.open(bob, alice, 1_000_000, 500_000)
	w.open(alice, carol, 1_000_000, 500_000)
	for _, node := range []*Node{bob, carol} {
		w.eventually(node.name+" knows all channels", func() error {
			graph, err := node.DescribeGraph(w.ctx(), &lnrpc.ChannelGraphRequest{})
			if err == nil && len(graph.Edges) != 3 {
				err = errNotYet
			}
			return err
		})
	}
	// From here on under the preset for routing nodes, with zero refusals.
	signer.putInForce()
	w.pay(bob, carol, 20_000)
	w.pay(carol, bob, 10_000)
	// From the first talk to the tower on, states count until they are shown to be revoked.
	w.backedUp(alice)

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
	signer.mustNotRefuse()

	// The signer is killed under load. A stock lnd ends then; both come back and the channels go on.
	for range 20 {
		all.Add(1)
		go func() { defer all.Done(); _ = w.payOnce(alice, bob, 1_000) }()
	}
	signer.kill()
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

	// Bob keeps a copy of a state in which he owns more of both channels.
	bob.stop()
	w.must(os.CopyFS(w.path("bob-old"), os.DirFS(w.path("bob"))))
	bob.run()
	bob.ready()
	w.connect(bob, alice, aliceKey)
	w.payThrough(bob, alice, breached, 200_000)
	w.payThrough(bob, alice, second, 100_000)
	w.backedUp(alice)
	// Many payments share few states.
	signer.mustHaveProofs("alice", 8)
	bob.stop()
	w.must(os.RemoveAll(w.path("bob")))
	w.must(os.Rename(w.path("bob-old"), w.path("bob")))

	// He publishes the first when neither alice nor the tower looks; she punishes him when she is back.
	before := w.confirmed(alice)
	alice.stop()
	carol.stop()
	w.publish(bob, breached)
	alice.run()
	alice.ready()
	w.gains(alice, before, 1_900_000, alice)

	// The second when the tower does.
	before = w.confirmed(alice)
	alice.stop()
	carol.run()
	carol.ready()
	w.publish(bob, second)
	w.eventually("the tower sends its justice transaction", func() error {
		var waiting []string
		err := w.chain("getrawmempool", &waiting)
		if err == nil && len(waiting) == 0 {
			err = errNotYet
		}
		return err
	})
	w.mine(1, carol)
	alice.run()
	alice.ready()
	w.gains(alice, before, 900_000, alice, carol)
	if signer.signed("justice") == 0 {
		t.Error("the journal names no justice")
	}
	signer.mustNotRefuse()
}

// watch has a node's watchtower watch another's channels.
func (w *World) watch(client, node *Node, tower string) {
	w.t.Helper()
	info, err := watchtower(node).GetInfo(w.ctx(), &watchtowerrpc.GetInfoRequest{})
	w.must(err)
	_, err = towerClient(client).AddTower(w.ctx(), &wtclientrpc.AddTowerRequest{Pubkey: info.Pubkey, Address: tower})
	w.must(err)
}

// backedUp waits until the tower has every state of the past.
func (w *World) backedUp(node *Node) {
	w.t.Helper()
	w.eventually("the tower has it all", func() error {
		stats, err := towerClient(node).Stats(w.ctx(), &wtclientrpc.StatsRequest{})
		if err == nil && (stats.NumPendingBackups > 0 || stats.NumFailedBackups > 0 || stats.NumBackups == 0) {
			err = fmt.Errorf("%v", stats)
		}
		return err
	})
}

// mustHaveProofs waits until every state that was replaced is shown to be revoked, and fails the test if those are fewer.
func (s *Signer) mustHaveProofs(node string, atLeast int) {
	s.w.t.Helper()
	s.w.eventually("no state of the past is unproven", func() error {
		metrics := s.cli("", "metrics")
		if !strings.Contains(metrics, fmt.Sprintf("claviger_unproven_states{node=%q} 0\n", node)) {
			return fmt.Errorf("%v", regexp.MustCompile(`(?m)^claviger_unproven_states.*$`).FindAllString(metrics, -1))
		}
		return nil
	})
	proofs := 0
	for _, decision := range s.decisions() {
		for _, fact := range decision.Facts {
			if fact.Name == "revoked_commitment" {
				proofs++
			}
		}
	}
	if proofs < atLeast {
		s.w.t.Errorf("%d states are shown to be revoked", proofs)
	}
	if shown := s.cli("", "node", "show", node); !strings.Contains(shown, "0 unproven states") {
		s.w.t.Errorf("claviger node show says\n%s", shown)
	}
}

// publish has a node that is not running close a channel by force; it is stopped again once the transaction is in a block.
func (w *World) publish(node *Node, point *lnrpc.ChannelPoint) {
	w.t.Helper()
	node.run()
	node.ready()
	closing, err := node.CloseChannel(w.ctx(), &lnrpc.CloseChannelRequest{ChannelPoint: point, Force: true, NoWait: true})
	w.must(err)
	_, err = closing.Recv()
	w.must(err)
	node.stop()
	w.must(w.chain("generate", nil, 1))
}

// gains waits until a node has so much more than before.
func (w *World) gains(node *Node, before, atLeast int64, nodes ...*Node) {
	w.t.Helper()
	w.eventually(node.name+" gains what the cheat had", func() error {
		w.mine(1, nodes...)
		if gained := w.confirmed(node) - before; gained < atLeast {
			return fmt.Errorf("%s has %d sat more", node.name, gained)
		}
		return nil
	})
}

// payOnce pays a new invoice and says why it failed.
func (w *World) payOnce(from, to *Node, sat int64) error {
	invoice, err := to.AddInvoice(w.ctx(), &lnrpc.Invoice{Value: sat})
	if err != nil {
		return err
	}
	return w.settle(from, &routerrpc.SendPaymentRequest{PaymentRequest: invoice.PaymentRequest})
}

// payThrough pays a new invoice through this channel.
func (w *World) payThrough(from, to *Node, channel *lnrpc.ChannelPoint, sat int64) {
	w.t.Helper()
	w.eventually(from.name+" pays "+to.name, func() error {
		channels, err := from.ListChannels(w.ctx(), &lnrpc.ListChannelsRequest{ActiveOnly: true})
		if err != nil {
			return err
		}
		for _, found := range channels.Channels {
			if found.ChannelPoint == text(channel) {
				invoice, err := to.AddInvoice(w.ctx(), &lnrpc.Invoice{Value: sat})
				w.must(err)
				return w.settle(from, &routerrpc.SendPaymentRequest{
					PaymentRequest: invoice.PaymentRequest, OutgoingChanIds: []uint64{found.ChanId},
				})
			}
		}
		return errNotYet
	})
}

func (w *World) settle(from *Node, request *routerrpc.SendPaymentRequest) error {
	request.TimeoutSeconds, request.FeeLimitSat, request.NoInflightUpdates = 50, 100, true
	payment, err := routerrpc.NewRouterClient(from.conn).SendPaymentV2(w.ctx(), request)
	if err != nil {
		return err
	}
	outcome, err := payment.Recv()
	if err == io.EOF || err == nil && outcome.Status != lnrpc.Payment_SUCCEEDED {
		return fmt.Errorf("%s: %v", from.name, outcome.GetFailureReason())
	}
	return err
}

func (w *World) confirmed(node *Node) int64 {
	w.t.Helper()
	balance, err := node.WalletBalance(w.ctx(), &lnrpc.WalletBalanceRequest{})
	w.must(err)
	return balance.ConfirmedBalance
}

func text(point *lnrpc.ChannelPoint) string {
	txid, err := lnrpc.GetChanPointFundingTxid(point)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s:%d", txid, point.OutputIndex)
}

func towerClient(node *Node) wtclientrpc.WatchtowerClientClient {
	return wtclientrpc.NewWatchtowerClientClient(node.conn)
}

func watchtower(node *Node) watchtowerrpc.WatchtowerClient {
	return watchtowerrpc.NewWatchtowerClient(node.conn)
}
