package lnd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/invoicesrpc"
	"github.com/lightningnetwork/lnd/lnrpc/routerrpc"
	"github.com/lightningnetwork/lnd/lnrpc/walletrpc"
)

const (
	honestOperations = 120
	keysendRecord    = 5482373484
)

// town is three nodes, of which alice keeps her keys in the signer, and what they do at random.
type town struct {
	*World
	random            *rand.Rand
	signer            *Signer
	alice, bob, carol *Node
	keys              map[*Node]string
	bobs              string // an address on alice's list
}

// A stock lnd under the preset for routing nodes does what such a node may, in an order drawn from a seed, and nothing of
// it is refused. CLAVIGER_TEST_SEED and CLAVIGER_TEST_LND_OPERATIONS choose the order and its length.
func TestHonestSuiteForLND(t *testing.T) {
	seed, operations := number(t, "CLAVIGER_TEST_SEED", 1), number(t, "CLAVIGER_TEST_LND_OPERATIONS", honestOperations)
	town := newTown(t, seed)
	kinds := []operation{
		{"payment", 30, town.payment}, {"keysend", 8, town.keysend}, {"multipath", 6, town.multipath},
		{"forward", 12, town.forward}, {"invoice", 4, town.invoice}, {"send", 5, town.send}, {"psbt", 4, town.psbt},
		{"open", 3, town.opening}, {"close", 2, func() error { return town.closing(false) }},
		{"force-close", 1, func() error { return town.closing(true) }},
		{"restart", 1, func() error { town.restart(false); return nil }},
		{"signer-restart", 1, func() error { town.restart(true); return nil }},
	}
	planned, done := map[string]int{}, map[string]int{}
	for n, kind := range town.plan(kinds, operations) {
		planned[kind.name]++
		// An operation may fail for want of funds or of a route: what counts is that the signer refuses none.
		if err := kind.run(); err != nil {
			t.Logf("operation %d, %s: %v", n, kind.name, err)
		} else {
			done[kind.name]++
		}
		if !town.alice.isRunning() {
			t.Fatalf("lnd ended after operation %d, %s", n, kind.name)
		}
	}
	town.signer.mustNotRefuse()
	t.Logf("seed %d: %d decisions, %d operations; succeeded: %v", seed, len(town.signer.decisions()), operations, done)
	// Nothing is refused where nothing is done: at least half of each kind has to succeed.
	for name, count := range planned {
		if done[name] < (count+1)/2 {
			t.Errorf("only %d of %d operations of the kind %s succeeded", done[name], count, name)
		}
	}
}

// operation is a kind of them, as frequent as its weight says.
type operation struct {
	name   string
	weight int
	run    func() error
}

// plan puts operations in a random order: each kind in proportion to its weight, and once at least.
func (t *town) plan(kinds []operation, count int) []operation {
	total := 0
	for _, kind := range kinds {
		total += kind.weight
	}
	var plan []operation
	for _, kind := range kinds {
		for range max(1, count*kind.weight/total) {
			plan = append(plan, kind)
		}
	}
	for len(plan) < count {
		plan = append(plan, kinds[0])
	}
	t.random.Shuffle(len(plan), func(a, b int) { plan[a], plan[b] = plan[b], plan[a] })
	return plan
}

func newTown(t *testing.T, seed int) *town {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 1000000000\n")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	unlock := w.path("password")
	w.must(writeFile(unlock, passphrase))
	accepts := []string{"--accept-keysend", "--accept-amp"}
	alice := w.watchOnly("alice", bundle, signer.lnd, accepts...)
	bob := w.lnd("bob", append(accepts, "--noseedbackup")...)
	carol := w.lnd("carol", append(accepts, "--noseedbackup")...)
	keys := map[*Node]string{}
	for _, node := range []*Node{alice, bob, carol} {
		keys[node] = node.ready().IdentityPubkey
	}
	alice.args = append(alice.args, "--wallet-unlock-password-file="+unlock)
	town := &town{World: w, random: rand.New(rand.NewSource(int64(seed))), signer: signer,
		alice: alice, bob: bob, carol: carol, keys: keys}
	town.address(alice, lnrpc.AddressType_WITNESS_PUBKEY_HASH)
	w.mine(450, alice, bob, carol)
	// Coins for all, then the policy: what an operator would do by hand is not the suite's.
	town.bobs = town.address(bob, lnrpc.AddressType_TAPROOT_PUBKEY)
	for range 4 {
		_, err := alice.SendMany(w.ctx(), &lnrpc.SendManyRequest{SatPerVbyte: 2, AddrToAmount: map[string]int64{
			town.bobs: 3_000_000, town.address(carol, lnrpc.AddressType_TAPROOT_PUBKEY): 3_000_000,
			town.address(alice, lnrpc.AddressType_TAPROOT_PUBKEY): 3_000_000,
		}})
		w.must(err)
		w.mine(1, alice, bob, carol)
	}
	signer.putInForceAllDay(town.bobs)
	town.meet()
	w.open(alice, bob, 1_000_000, 0)
	w.open(bob, alice, 1_000_000, 400_000)
	w.open(alice, carol, 1_000_000, 0)
	w.open(carol, alice, 1_000_000, 400_000)
	town.active()
	return town
}

// meet connects alice with the others.
func (t *town) meet() {
	t.connect(t.bob, t.alice, t.keys[t.alice])
	t.connect(t.carol, t.alice, t.keys[t.alice])
}

// active waits until every channel is used on both sides, and everybody knows the way through it. A link that was lost in
// the midst of a reconnect takes another one, as operators know.
func (t *town) active() {
	last := time.Now()
	t.eventually("all channels are active and known", func() error {
		if time.Since(last) > 20*time.Second {
			for _, node := range []*Node{t.bob, t.carol} {
				_, _ = node.DisconnectPeer(t.ctx(), &lnrpc.DisconnectPeerRequest{PubKey: t.keys[t.alice]})
			}
			t.meet()
			last = time.Now()
		}
		all, err := t.alice.ListChannels(t.ctx(), &lnrpc.ListChannelsRequest{})
		if err != nil {
			return err
		}
		for node := range t.keys {
			open, err := node.ListChannels(t.ctx(), &lnrpc.ListChannelsRequest{})
			if err != nil {
				return err
			}
			for _, channel := range open.Channels {
				if !channel.Active {
					return fmt.Errorf("%s does not use %s", node.name, channel.ChannelPoint)
				}
			}
			graph, err := node.DescribeGraph(t.ctx(), &lnrpc.ChannelGraphRequest{})
			if err != nil {
				return err
			}
			known := map[uint64]bool{}
			for _, edge := range graph.Edges {
				known[edge.ChannelId] = isOpen(edge.Node1Policy) && isOpen(edge.Node2Policy)
			}
			for _, channel := range all.Channels {
				if !known[channel.ChanId] {
					return fmt.Errorf("%s does not know %s", node.name, channel.ChannelPoint)
				}
			}
		}
		return nil
	})
}

func isOpen(policy *lnrpc.RoutingPolicy) bool { return policy != nil && !policy.Disabled }

// pair is alice and another; the one with more in their channels pays.
func (t *town) pair() (from, to *Node) {
	from, to = t.alice, []*Node{t.bob, t.carol}[t.random.Intn(2)]
	if alices, others := t.balance(to); alices < others {
		from, to = to, from
	}
	t.forget(from)
	return from, to
}

// forget has a node try routes again that failed before.
func (t *town) forget(node *Node) {
	_, err := routerrpc.NewRouterClient(node.conn).ResetMissionControl(t.ctx(), &routerrpc.ResetMissionControlRequest{})
	t.must(err)
}

// balance is what alice and another have in their channels.
func (t *town) balance(other *Node) (alices, others int64) {
	channels, err := t.alice.ListChannels(t.ctx(), &lnrpc.ListChannelsRequest{Peer: t.key(other)})
	t.must(err)
	for _, channel := range channels.Channels {
		alices, others = alices+channel.LocalBalance, others+channel.RemoteBalance
	}
	return alices, others
}

func (t *town) address(node *Node, kind lnrpc.AddressType) string {
	address, err := node.NewAddress(t.ctx(), &lnrpc.NewAddressRequest{Type: kind})
	t.must(err)
	return address.Address
}

func (t *town) payment() error {
	from, to := t.pair()
	return t.payOnce(from, to, 500+t.random.Int63n(40_000))
}

func (t *town) keysend() error {
	from, to := t.pair()
	preimage := make([]byte, 32)
	binary.BigEndian.PutUint64(preimage, t.random.Uint64())
	hash := sha256.Sum256(preimage)
	return t.settle(from, &routerrpc.SendPaymentRequest{
		Dest: t.key(to), Amt: 500 + t.random.Int63n(5_000), PaymentHash: hash[:], FinalCltvDelta: 40,
		DestCustomRecords: map[uint64][]byte{keysendRecord: preimage},
	})
}

func (t *town) multipath() error {
	from, to := t.pair()
	return t.settle(from, &routerrpc.SendPaymentRequest{
		Dest: t.key(to), Amt: 15_000 + t.random.Int63n(25_000), Amp: true, MaxParts: 4, MaxShardSizeMsat: 10_000_000,
	})
}

// forward goes through alice, to where she has more.
func (t *town) forward() error {
	from, to := t.bob, t.carol
	toBob, _ := t.balance(t.bob)
	if toCarol, _ := t.balance(t.carol); toBob > toCarol {
		from, to = t.carol, t.bob
	}
	t.forget(from)
	return t.payOnce(from, to, 1_000+t.random.Int63n(5_000))
}

func (t *town) key(node *Node) []byte {
	var key []byte
	_, err := fmt.Sscanf(t.keys[node], "%x", &key)
	t.must(err)
	return key
}

// invoice makes one that is never paid.
func (t *town) invoice() error {
	invoice, err := t.alice.AddInvoice(t.ctx(), &lnrpc.Invoice{Value: t.random.Int63n(10_000), Expiry: 60})
	if err == nil && t.random.Intn(2) == 0 {
		_, err = invoicesrpc.NewInvoicesClient(t.alice.conn).CancelInvoice(t.ctx(),
			&invoicesrpc.CancelInvoiceMsg{PaymentHash: invoice.RHash})
	}
	return err
}

// destination is the listed address, or one of alice's own, of each kind.
func (t *town) destination() string {
	kinds := []lnrpc.AddressType{lnrpc.AddressType_WITNESS_PUBKEY_HASH, lnrpc.AddressType_NESTED_PUBKEY_HASH,
		lnrpc.AddressType_TAPROOT_PUBKEY}
	if at := t.random.Intn(len(kinds) + 1); at < len(kinds) {
		return t.address(t.alice, kinds[at])
	}
	return t.bobs
}

func (t *town) send() error {
	_, err := t.alice.SendCoins(t.ctx(), &lnrpc.SendCoinsRequest{
		Addr: t.destination(), Amount: 20_000 + t.random.Int63n(300_000), SatPerVbyte: 1 + t.random.Uint64()%10,
	})
	t.mine(1, t.alice, t.bob, t.carol)
	return err
}

func (t *town) psbt() error {
	wallet := walletrpc.NewWalletKitClient(t.alice.conn)
	amount := 20_000 + t.random.Uint64()%300_000
	funded, err := wallet.FundPsbt(t.ctx(), &walletrpc.FundPsbtRequest{
		Template: &walletrpc.FundPsbtRequest_Raw{Raw: &walletrpc.TxTemplate{Outputs: map[string]uint64{t.destination(): amount}}},
		Fees:     &walletrpc.FundPsbtRequest_SatPerVbyte{SatPerVbyte: 2},
	})
	if err != nil {
		return err
	}
	final, err := wallet.FinalizePsbt(t.ctx(), &walletrpc.FinalizePsbtRequest{FundedPsbt: funded.FundedPsbt})
	if err != nil {
		return err
	}
	if bytes.Equal(final.SignedPsbt, funded.FundedPsbt) {
		return fmt.Errorf("the PSBT was not signed")
	}
	_, err = wallet.PublishTransaction(t.ctx(), &walletrpc.Transaction{TxHex: final.RawFinalTx})
	t.mine(1, t.alice, t.bob, t.carol)
	return err
}

func (t *town) opening() error {
	from, to := t.pair()
	_, err := from.OpenChannelSync(t.ctx(), &lnrpc.OpenChannelRequest{
		NodePubkey: t.key(to), LocalFundingAmount: 300_000 + t.random.Int63n(500_000), SatPerVbyte: 2,
	})
	t.mine(6, t.alice, t.bob, t.carol)
	t.active()
	return err
}

// closing ends one of alice's channels from either side; there stay four.
func (t *town) closing(force bool) error {
	active := &lnrpc.ListChannelsRequest{ActiveOnly: true}
	channels, err := t.alice.ListChannels(t.ctx(), active)
	if err == nil && len(channels.Channels) <= 4 {
		if err = t.opening(); err == nil {
			channels, err = t.alice.ListChannels(t.ctx(), active)
		}
	}
	if err != nil {
		return err
	}
	chosen := channels.Channels[t.random.Intn(len(channels.Channels))]
	var txid string
	var output uint32
	if _, err := fmt.Sscanf(chosen.ChannelPoint, "%64s:%d", &txid, &output); err != nil {
		return err
	}
	point := &lnrpc.ChannelPoint{OutputIndex: output, FundingTxid: &lnrpc.ChannelPoint_FundingTxidStr{FundingTxidStr: txid}}
	closer := t.alice
	if t.random.Intn(2) == 0 {
		for _, node := range []*Node{t.bob, t.carol} {
			if t.keys[node] == chosen.RemotePubkey {
				closer = node
			}
		}
	}
	t.World.close(closer, point, force, t.alice, t.bob, t.carol)
	return nil
}

// restart ends alice and starts her again, with her signer killed in between if so wished.
func (t *town) restart(signer bool) {
	t.alice.stop()
	if signer {
		t.signer.kill()
		t.signer.run()
	}
	t.alice.run()
	t.alice.ready()
	t.meet()
	t.active()
}

func number(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s is no number: %v", name, err)
	}
	return value
}
