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

	"github.com/lightningnetwork/lnd/lnrpc"
	"github.com/lightningnetwork/lnd/lnrpc/signrpc"
	"github.com/lightningnetwork/lnd/lnrpc/walletrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Whoever has lnd's macaroon and speaks to the door by himself gets a status that would not end lnd, with its reason; the
// honest twin beside it is answered, and the lnd that lives with the same signer goes on.
func TestHostileCallsAreRefusedAndLndGoesOn(t *testing.T) {
	w := newWorld(t)
	signer := w.signer("")
	bundle, other := signer.add("alice"), signer.add("other")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))
	alice := w.watchOnly("alice", bundle, signer.lnd)
	node, err := hex.DecodeString(alice.ready().IdentityPubkey)
	w.must(err)

	creds, err := credentials.NewClientTLSFromFile(filepath.Join(bundle, "tls.cert"), "")
	w.must(err)
	conn, err := grpc.NewClient(signer.lnd, grpc.WithTransportCredentials(creds))
	w.must(err)
	t.Cleanup(func() { conn.Close() })
	keys, wallet := signrpc.NewSignerClient(conn), walletrpc.NewWalletKitClient(conn)
	with := func(macaroon []byte) context.Context {
		return metadata.AppendToOutgoingContext(w.ctx(), "macaroon", hex.EncodeToString(macaroon))
	}
	macaroon, err := os.ReadFile(filepath.Join(bundle, "lnd.macaroon"))
	w.must(err)
	others, err := os.ReadFile(filepath.Join(other, "lnd.macaroon"))
	w.must(err)
	damaged := slices.Clone(macaroon)
	damaged[len(damaged)-1] ^= 1

	share := func(macaroon []byte, family, index int32) ([]byte, error) {
		reply, err := keys.DeriveSharedKey(with(macaroon), &signrpc.SharedKeyRequest{
			EphemeralPubkey: node,
			KeyDesc:         &signrpc.KeyDescriptor{KeyLoc: &signrpc.KeyLocator{KeyFamily: family, KeyIndex: index}, RawKeyBytes: nil},
		})
		return reply.GetSharedKey(), err
	}
	say := func(family int32, text string) error {
		_, err := keys.SignMessage(with(macaroon), &signrpc.SignMessageReq{
			Msg: []byte(text), KeyLoc: &signrpc.KeyLocator{KeyFamily: family}, DoubleHash: true, CompactSig: family == 6,
		})
		return err
	}
	sign := func(psbt []byte) error {
		_, err := wallet.SignPsbt(with(macaroon), &walletrpc.SignPsbtRequest{FundedPsbt: psbt})
		return err
	}
	only := func(_ []byte, err error) error { return err }
	_, session := keys.MuSig2CreateSession(with(macaroon), &signrpc.MuSig2SessionRequest{
		KeyLoc: &signrpc.KeyLocator{}, AllSignerPubkeys: [][]byte{node}, PregeneratedLocalNonce: bytes.Repeat([]byte{1}, 97),
		Version: signrpc.MuSig2Version_MUSIG2_VERSION_V100RC2,
	})
	for _, attack := range []struct {
		name string
		err  error
		code codes.Code
		says string
	}{
		{"no macaroon", only(share(nil, 6, 0)), codes.Unauthenticated, ""},
		{"a damaged macaroon", only(share(damaged, 6, 0)), codes.Unauthenticated, ""},
		{"the root of a channel with a foreign key", only(share(macaroon, 5, 1)), codes.OK, "secret-purpose"},
		{"a key of funding outputs as a secret", only(share(macaroon, 0, 0)), codes.OK, "secret-purpose"},
		{"a family below zero", only(share(macaroon, -1, 1)), codes.OK, ""},
		{"the last index", only(share(macaroon, 0, 1<<31-1)), codes.OK, ""},
		{"a text by a funding key", say(0, "Lightning Signed Message:it is me"), codes.OK, "claviger refused"},
		{"bytes of no meaning", say(6, "0123456789abcdef"), codes.OK, "claviger refused"},
		{"a session with its nonce", session, codes.OK, "nonce-foreign"},
		{"no PSBT", sign(nil), codes.OK, "malformed"},
		{"half a PSBT", sign([]byte("psbt\xff\x01\x00")), codes.OK, "malformed"},
		{"an endless PSBT", sign(bytes.Repeat([]byte("psbt\xff"), 10<<20)), codes.OK, ""},
	} {
		got := status.Convert(attack.err)
		fatal := got.Code() == codes.OK || got.Code() == codes.Unavailable || got.Code() == codes.DeadlineExceeded
		if fatal || attack.code != codes.OK && got.Code() != attack.code || !strings.Contains(got.Message(), attack.says) {
			t.Errorf("%s came to %v: %s", attack.name, got.Code(), got.Message())
		}
	}

	// The honest twins; the other node's macaroon speaks for the other node.
	secret, err := share(macaroon, 6, 0)
	w.must(err)
	w.must(say(6, "Lightning Signed Message:it is me"))
	foreign, err := share(others, 6, 0)
	w.must(err)
	if bytes.Equal(secret, foreign) {
		t.Error("another node's macaroon speaks for alice")
	}
	if _, err := alice.SignMessage(w.ctx(), &lnrpc.SignMessageRequest{Msg: []byte("it is me")}); err != nil || !alice.isRunning() {
		t.Errorf("lnd is not well: %v", err)
	}

	signer.cli("", "node", "revoke", "other")
	if _, err := share(others, 6, 0); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a revoked macaroon came to %v", err)
	}
}
