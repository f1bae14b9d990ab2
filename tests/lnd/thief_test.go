package lnd

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcutil/hdkeychain"
	"github.com/btcsuite/btcd/btcutil/psbt"
	"github.com/btcsuite/btcd/txscript"
	"github.com/btcsuite/btcd/wire"
	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/walletrpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// thief has lnd's macaroon, sees what lnd has signed, and asks for the same with something changed.
type thief struct {
	*World
	watch *Watch
	ctx   context.Context
	alice *Node
}

// theft is one change to one kind of question, and why it is refused.
type theft struct {
	name   string
	kind   func(*question) bool
	change func(*question)
	reason string
}

// question is a PSBT that lnd had signed, and the input that it asked for.
type question struct {
	*psbt.Packet
	input *psbt.PInput
}

var foreign = append([]byte{txscript.OP_1, txscript.OP_DATA_32}, bytes.Repeat([]byte{7}, 32)...)

// family is that of the channel's key which signs; -1 for a key of the wallet.
func (q *question) family() int {
	if len(q.input.Bip32Derivation) == 0 {
		return -1
	}
	path := q.input.Bip32Derivation[0].Bip32Path
	if path[0] != hdkeychain.HardenedKeyStart+1017 {
		return -1
	}
	return int(path[2] - hdkeychain.HardenedKeyStart)
}

func (q *question) isCommitment() bool { return q.family() == 0 && q.UnsignedTx.LockTime>>24 == 0x20 }
func (q *question) isHtlc() bool       { return q.family() == 2 }
func (q *question) isWallet() bool     { return q.family() == -1 && q.input.NonWitnessUtxo != nil }

// isSweep: the balance that our own commitment paid us, after its delay.
func (q *question) isSweep() bool { return q.family() == 4 && q.input.WitnessUtxo.Value > 300_000 }

// pay replaces all outputs by one.
func (q *question) pay(sat int64, script []byte) {
	q.UnsignedTx.TxOut = []*wire.TxOut{wire.NewTxOut(sat, script)}
	q.Outputs = make([]psbt.POutput, 1)
}

func (t *thief) parse(request []byte) *question {
	call := walletrpc.SignPsbtRequest{}
	t.must(proto.Unmarshal(request, &call))
	packet, err := psbt.NewFromRawBytes(bytes.NewReader(call.FundedPsbt), false)
	t.must(err)
	q := &question{Packet: packet}
	for at := range packet.Inputs {
		if in := &packet.Inputs[at]; len(in.Bip32Derivation)+len(in.TaprootBip32Derivation) > 0 && in.FinalScriptWitness == nil {
			q.input = in
		}
	}
	return q
}

// ask has the signer answer, and returns its answer or what it says instead.
func (t *thief) ask(q *question) ([]byte, error) {
	var text bytes.Buffer
	t.must(q.Serialize(&text))
	request, err := proto.Marshal(&walletrpc.SignPsbtRequest{FundedPsbt: text.Bytes()})
	t.must(err)
	var reply []byte
	err = t.watch.signer.Invoke(t.ctx, signPsbt, &request, &reply)
	return reply, err
}

// try takes the last question of each kind, changes it, and is refused for the reason; lnd lives, and the question as lnd had
// asked it is answered as before.
func (t *thief) try(thefts []theft) {
	t.t.Helper()
	t.watch.lock.Lock()
	signed := slices.Clone(t.watch.signed)
	t.watch.lock.Unlock()
	for _, theft := range thefts {
		var honest []byte
		for _, request := range slices.Backward(signed) {
			if q := t.parse(request); q.input != nil && theft.kind(q) {
				honest = request
				break
			}
		}
		if honest == nil {
			t.t.Errorf("%s: lnd asked for no such signature", theft.name)
			continue
		}
		before, err := t.ask(t.parse(honest))
		if err != nil {
			t.t.Errorf("%s: the honest twin came to %v", theft.name, err)
		}
		q := t.parse(honest)
		theft.change(q)
		if _, err := t.ask(q); err == nil || !strings.Contains(err.Error(), "claviger refused ("+theft.reason+")") {
			t.t.Errorf("%s came to %v, not %s", theft.name, err, theft.reason)
		}
		if after, err := t.ask(t.parse(honest)); err != nil || !bytes.Equal(before, after) {
			t.t.Errorf("after %s the honest twin came to another answer, or to %v", theft.name, err)
		}
		if !t.alice.isRunning() {
			t.t.Fatalf("lnd ended after %s", theft.name)
		}
	}
}

// Whoever took over lnd's host asks what lnd asked, with something changed, while channels are open and when they close: all
// of it is refused with its reason, and lnd goes on.
func TestAThiefWithRealQuestionsIsRefusedAndLndGoesOn(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("max_onchain_sat = 10000000\nmax_onchain_sat_per_day = 20000000\n")
	bundle := signer.add("alice")
	macaroon, err := os.ReadFile(filepath.Join(bundle, "lnd.macaroon"))
	w.must(err)
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	watch := w.watchSigner(signer.lnd, bundle)
	watch.keeping.Store(true)
	alice := w.watchOnly("alice", bundle, watch.address)
	bob := w.lnd("bob", "--noseedbackup")
	alice.ready()
	bobKey := bob.ready().IdentityPubkey
	_, err = alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	w.mine(450, alice, bob)
	w.connect(alice, bob, bobKey)
	point := w.open(alice, bob, 1_000_000, 300_000)
	theirs, err := bob.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_TAPROOT_PUBKEY})
	w.must(err)
	_, err = alice.SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: theirs.Address, Amount: 100_000, SatPerVbyte: 2})
	w.must(err)
	w.mine(1, alice, bob)
	w.pay(bob, alice, 5_000)
	w.hold(alice, bob, 20_000, 1)

	thief := &thief{World: w, watch: watch, alice: alice,
		ctx: metadata.AppendToOutgoingContext(context.Background(), "macaroon", hex.EncodeToString(macaroon))}
	commitment, htlc, wallet, sweep := (*question).isCommitment, (*question).isHtlc, (*question).isWallet, (*question).isSweep
	otherSighash := func(q *question) { q.input.SighashType = txscript.SigHashNone }
	thief.try([]theft{
		{"a far commitment", commitment, func(q *question) { q.UnsignedTx.LockTime ^= 0x40 }, "commitment-out-of-order"},
		{"a commitment that burns the channel", commitment, func(q *question) {
			for _, out := range q.UnsignedTx.TxOut {
				out.Value = 330
			}
		}, "commitment-fee"},
		{"a commitment under another sighash type", commitment, otherSighash, "transaction-unknown"},
		{"a channel of another amount", commitment, func(q *question) { q.input.WitnessUtxo.Value++ }, "funding-mismatch"},
		{"a key of another path", commitment, func(q *question) { q.input.Bip32Derivation[0].Bip32Path[4]++ }, "key-purpose"},
		{"a channel of somebody else's", commitment, func(q *question) {
			q.UnsignedTx.TxIn[0].PreviousOutPoint.Index += 7
		}, "channel-unknown"},
		{"a close that pays a stranger", commitment, func(q *question) {
			q.UnsignedTx.LockTime, q.UnsignedTx.TxIn[0].Sequence = 0, wire.MaxTxInSequenceNum
			q.pay(q.input.WitnessUtxo.Value-1_000, foreign)
		}, "close-value"},
		{"an HTLC that pays at once", htlc, func(q *question) { q.pay(1_000, foreign) }, "transaction-unknown"},
		{"an HTLC under another sighash type", htlc, otherSighash, "transaction-unknown"},
		{"a send of all to a stranger", wallet, func(q *question) {
			q.pay(q.input.NonWitnessUtxo.TxOut[q.UnsignedTx.TxIn[0].PreviousOutPoint.Index].Value-1_000, foreign)
		}, "limit"},
		{"a coin of another amount", wallet, func(q *question) { q.input.WitnessUtxo.Value++ }, "coin-amount"},
	})

	// What only the policy forbids.
	signer.putInForceWith("[[budget]]\nname = \"outflow\"\nactions = [\"UpdateChannel\"]\nfact = \"decrease_msat\"\nscope = [\"peer\"]\n"+
		"window = \"1h\"\nlimit = 100_000_000\n", "@id(\"large\") forbid (principal, action == Action::\"SignHtlc\", resource)\n"+
		"when { context.htlc_msat > 50000000 };\n")
	thief.try([]theft{
		{"a state that pays the peer what is ours", commitment, func(q *question) {
			outputs := slices.Clone(q.UnsignedTx.TxOut)
			slices.SortFunc(outputs, func(a, b *wire.TxOut) int { return int(b.Value - a.Value) })
			ours, theirs := outputs[0], outputs[1]
			ours.Value, theirs.Value = ours.Value-300_000, theirs.Value+300_000
		}, "policy-budget-exceeded"},
		{"an HTLC above the limit", htlc, func(q *question) { q.input.WitnessUtxo.Value = 60_000 }, "policy-forbidden"},
	})

	// Our own commitment closes the channel: from then on no other state is signed, and what it paid comes to us alone.
	w.close(alice, point, true, alice, bob)
	thief.try([]theft{
		{"a state after the close", commitment, func(q *question) {
			q.UnsignedTx.LockTime ^= 1
		}, "update-after-close"},
		{"a sweep to a stranger", sweep, func(q *question) { q.UnsignedTx.TxOut[0].PkScript = foreign }, "output-foreign"},
		{"a sweep that burns what it sweeps", sweep, func(q *question) {
			for _, out := range q.UnsignedTx.TxOut {
				out.Value = 330
			}
		}, "sweep-fee"},
	})
	point = w.open(alice, bob, 500_000, 0)
	w.pay(alice, bob, 10_000)
	w.close(alice, point, false, alice, bob)
	if !alice.isRunning() {
		t.Fatal("lnd ended")
	}
}
