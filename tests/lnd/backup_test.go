package lnd

import (
	"fmt"
	"os"
	"testing"

	"github.com/lightningnetwork/lnd/lnrpc"
)

// An lnd that lost all it knew restores its channels from a static backup: its peer closes them, and what they owe comes
// home, with keys and revocation roots that stayed in the signer.
func TestChannelsAreRestoredFromAStaticBackup(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("")
	bundle := signer.add("alice")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.watchOnly("alice", bundle, signer.lnd)
	bob := w.lnd("bob", "--noseedbackup")
	aliceKey := alice.ready().IdentityPubkey
	bobKey := bob.ready().IdentityPubkey
	_, err := alice.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	w.mine(450, alice, bob)
	signer.putInForce()
	w.connect(alice, bob, bobKey)
	w.open(alice, bob, 1_000_000, 0)
	w.pay(alice, bob, 100_000)
	w.pay(bob, alice, 20_000)
	backup, err := alice.ExportAllChannelBackups(w.ctx(), &lnrpc.ChanBackupExportRequest{})
	w.must(err)

	alice.stop()
	w.must(os.RemoveAll(w.path("alice")))
	alice.run()
	alice.initWallet(bundle)
	if restored := alice.ready().IdentityPubkey; restored != aliceKey {
		t.Fatalf("the node was %s and is %s", aliceKey, restored)
	}
	w.eventually("alice takes her backup", func() error {
		_, err := alice.RestoreChannelBackups(w.ctx(), &lnrpc.RestoreChanBackupRequest{
			Backup: &lnrpc.RestoreChanBackupRequest_MultiChanBackup{MultiChanBackup: backup.MultiChanBackup.MultiChanBackup},
		})
		return err
	})
	w.connect(alice, bob, bobKey)
	w.eventually("bob closes the channel", func() error {
		pending, err := bob.PendingChannels(w.ctx(), &lnrpc.PendingChannelsRequest{})
		if err == nil && len(pending.WaitingCloseChannels)+len(pending.PendingForceClosingChannels) == 0 {
			err = errNotYet
		}
		return err
	})
	w.eventually("what it owes comes home", func() error {
		w.mine(1, alice, bob)
		pending, err := alice.PendingChannels(w.ctx(), &lnrpc.PendingChannelsRequest{})
		if err != nil {
			return err
		}
		closing := len(pending.WaitingCloseChannels) + len(pending.PendingForceClosingChannels)
		if swept := signer.signed("to-remote-sweep"); closing > 0 || swept == 0 {
			return fmt.Errorf("%d channels close, %d sweeps are signed", closing, swept)
		}
		return nil
	})
	signer.mustNotRefuse()
}
