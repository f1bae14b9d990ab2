package lnd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
)

// An unmodified lnd opens a channel, pays and is paid, announces itself, and closes, with every key in the signer.
func TestStockLndLivesWithItsKeysInTheSigner(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.watchOnly("alice", bundle, signer.lnd)
	bob := w.lnd("bob", "--noseedbackup")
	info := alice.ready()
	bobInfo := bob.ready()
	if shown := signer.cli("", "node", "show", "alice"); !strings.Contains(shown, info.IdentityPubkey) {
		t.Fatalf("lnd is %s, and the signer shows\n%s", info.IdentityPubkey, shown)
	}

	address, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	if expected := w.firstAddress(bundle); address.Address != expected {
		t.Fatalf("the wallet's first address is %s, not %s", address.Address, expected)
	}
	w.mine(450, alice, bob)

	w.connect(alice, bob, bobInfo.IdentityPubkey)
	point := w.open(alice, bob, 1_000_000, 200_000)
	for range 3 {
		w.pay(alice, bob, 10_000)
		w.pay(bob, alice, 5_000)
	}
	// The operator sees the channel, and with whom it is once it is announced.
	if shown := signer.cli("", "channel", "list", "alice"); !strings.Contains(shown, text(point)+"  ready, in-step") {
		t.Fatalf("the channel %s is shown as\n%s", text(point), shown)
	}
	w.eventually("the signer knows the channel's peer", func() error {
		shown, err := signer.tryCli("", "channel", "show", "alice", text(point))
		if err == nil && !strings.Contains(shown, bobInfo.IdentityPubkey) {
			err = fmt.Errorf("not in\n%s", shown)
		}
		return err
	})
	signed, err := alice.SignMessage(w.ctx(), &lnrpc.SignMessageRequest{Msg: []byte("it is me")})
	w.must(err)
	verified, err := bob.VerifyMessage(w.ctx(), &lnrpc.VerifyMessageRequest{Msg: []byte("it is me"), Signature: signed.Signature})
	w.must(err)
	if verified.Pubkey != info.IdentityPubkey {
		t.Fatalf("the message is signed by %s", verified.Pubkey)
	}

	// On chain, from inputs of each kind.
	for _, kind := range []lnrpc.AddressType{lnrpc.AddressType_NESTED_PUBKEY_HASH, lnrpc.AddressType_TAPROOT_PUBKEY} {
		own, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: kind})
		w.must(err)
		_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: own.Address, Amount: 3_000_000, TargetConf: 6})
		w.must(err)
		w.mine(1, alice, bob)
	}
	theirs, err := bob.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_TAPROOT_PUBKEY})
	w.must(err)
	_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: theirs.Address, Amount: 9_000_000, TargetConf: 6})
	w.must(err)
	w.mine(1, alice, bob)

	// More than the limits allow: refused with its reason, and lnd goes on.
	_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: theirs.Address, Amount: 10_000_001, TargetConf: 6})
	if err == nil || !strings.Contains(err.Error(), "claviger refused (limit)") {
		t.Fatalf("the send came to %v", err)
	}
	w.pay(alice, bob, 1_000)

	w.close(alice, point, false, alice, bob)
	point = w.open(alice, bob, 500_000, 0)
	w.pay(alice, bob, 50_000)
	w.close(alice, point, true, alice, bob)
	if !alice.isRunning() {
		t.Fatal("lnd ended")
	}
}

func (w *World) connect(from, to *Node, key string) {
	w.t.Helper()
	w.eventually("the peers connect", func() error {
		peer := &lnrpc.LightningAddress{Pubkey: key, Host: to.p2p}
		_, err := from.ConnectPeer(w.ctx(), &lnrpc.ConnectPeerRequest{Addr: peer})
		if err != nil && strings.Contains(err.Error(), "already connected") {
			return nil
		}
		return err
	})
}

// open opens a channel and waits until both sides use it.
func (w *World) open(from, to *Node, sat, push int64) *lnrpc.ChannelPoint {
	w.t.Helper()
	info, err := to.GetInfo(w.ctx(), &lnrpc.GetInfoRequest{})
	w.must(err)
	request := &lnrpc.OpenChannelRequest{
		NodePubkeyString: info.IdentityPubkey, LocalFundingAmount: sat, PushSat: push, SatPerVbyte: 2,
	}
	point, err := from.OpenChannelSync(w.ctx(), request)
	w.must(err)
	w.mine(6, from, to)
	for _, node := range []*Node{from, to} {
		w.eventually("the channel is active at "+node.name, func() error {
			channels, err := node.ListChannels(w.ctx(), &lnrpc.ListChannelsRequest{ActiveOnly: true})
			if err == nil && len(channels.Channels) == 0 {
				err = fmt.Errorf("there is none")
			}
			return err
		})
	}
	return point
}

// pay pays an invoice. A channel that was just opened may take a moment to be found.
func (w *World) pay(from, to *Node, sat int64) {
	w.t.Helper()
	invoice, err := to.AddInvoice(w.ctx(), &lnrpc.Invoice{Value: sat, Memo: fmt.Sprintf("%d sat for %s", sat, to.name)})
	w.must(err)
	request := &routerrpc.SendPaymentRequest{
		PaymentRequest: invoice.PaymentRequest, TimeoutSeconds: 60, FeeLimitSat: 100, NoInflightUpdates: true,
	}
	w.eventually(from.name+" pays "+to.name, func() error {
		payment, err := routerrpc.NewRouterClient(from.conn).SendPaymentV2(w.ctx(), request)
		w.must(err)
		outcome, err := payment.Recv()
		if err == nil && outcome.Status != lnrpc.Payment_SUCCEEDED {
			err = fmt.Errorf("%v", outcome.FailureReason)
		}
		return err
	})
}

// close closes a channel and waits until nobody has it any more, and nothing is pending: while the two agree on a close it is open
// to them.
func (w *World) close(node *Node, point *lnrpc.ChannelPoint, force bool, nodes ...*Node) {
	w.t.Helper()
	request := &lnrpc.CloseChannelRequest{ChannelPoint: point, Force: force, NoWait: true}
	if !force {
		request.SatPerVbyte = 2
	}
	closing, err := node.CloseChannel(w.ctx(), request)
	w.must(err)
	_, err = closing.Recv()
	w.must(err)
	channel := text(point)
	w.eventually(channel+" is closed and nothing is pending", func() error {
		w.mine(2, nodes...)
		for _, node := range nodes {
			open, err := node.ListChannels(w.ctx(), &lnrpc.ListChannelsRequest{})
			if err != nil {
				return err
			}
			for _, other := range open.Channels {
				if other.ChannelPoint == channel {
					return fmt.Errorf("%s still has it", node.name)
				}
			}
			pending, err := node.PendingChannels(w.ctx(), &lnrpc.PendingChannelsRequest{})
			if err != nil {
				return err
			}
			if n := len(pending.WaitingCloseChannels) + len(pending.PendingForceClosingChannels); n > 0 {
				return fmt.Errorf("%s has %d channels that close", node.name, n)
			}
		}
		return nil
	})
}
