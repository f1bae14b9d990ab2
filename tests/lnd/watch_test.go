package lnd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// Watch stands between an lnd and its signer, hands calls on as they are, takes their time, and keeps what was signed.
type Watch struct {
	address   string
	measuring atomic.Bool
	keeping   atomic.Bool
	signer    *grpc.ClientConn
	lock      sync.Mutex
	took      map[string][]time.Duration
	// Requests of SignPsbt, oldest first.
	signed [][]byte
}

// watchSigner watches the signer at an address and replaces its certificate in the bundle by its own. The signer's is the
// bundle's, unless another one is named.
func (w *World) watchSigner(signer, bundle string, certificate ...string) *Watch {
	w.t.Helper()
	own := filepath.Join(bundle, "tls.cert")
	creds, err := credentials.NewClientTLSFromFile(append(certificate, own)[0], "")
	w.must(err)
	conn, err := grpc.NewClient(signer, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	w.must(err)
	pair, text := w.selfSigned()
	w.must(os.WriteFile(own, text, 0o600))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	watch := &Watch{address: listener.Addr().String(), signer: conn, took: map[string][]time.Duration{}}
	server := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&pair)), grpc.ForceServerCodec(raw{}),
		grpc.UnknownServiceHandler(watch.handOn))
	go func() { _ = server.Serve(listener) }()
	w.t.Cleanup(func() { server.Stop(); conn.Close() })
	return watch
}

// handOn is one unary call of any service.
func (w *Watch) handOn(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	var request, reply []byte
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	ctx := stream.Context()
	if received, ok := metadata.FromIncomingContext(ctx); ok {
		ctx = metadata.NewOutgoingContext(ctx, metadata.MD{"macaroon": received.Get("macaroon")})
	}
	start := time.Now()
	err := w.signer.Invoke(ctx, method, &request, &reply)
	w.note(method, time.Since(start))
	if err != nil {
		return err
	}
	if method == signPsbt && w.keeping.Load() {
		w.lock.Lock()
		w.signed = append(w.signed, request)
		w.lock.Unlock()
	}
	return stream.SendMsg(&reply)
}

func (w *Watch) note(method string, took time.Duration) {
	if w.measuring.Load() {
		w.lock.Lock()
		defer w.lock.Unlock()
		w.took[method] = append(w.took[method], took)
	}
}

// forget begins anew.
func (w *Watch) forget() {
	w.lock.Lock()
	defer w.lock.Unlock()
	clear(w.took)
}

// quantiles are the median of a method's calls, and what all but one in a hundred take at most.
func (w *Watch) quantiles(method string) (p50, p99 time.Duration) {
	w.lock.Lock()
	defer w.lock.Unlock()
	took := slices.Sorted(slices.Values(w.took[method]))
	if len(took) == 0 {
		return 0, 0
	}
	return took[len(took)/2], took[len(took)*99/100]
}

// selfSigned is a certificate for 127.0.0.1, and its PEM.
func (w *World) selfSigned() (tls.Certificate, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "watch"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	w.must(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// raw hands bytes on as they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) ([]byte, error) {
	bytes, ok := message.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("%T are no bytes", message)
	}
	return *bytes, nil
}

func (raw) Unmarshal(bytes []byte, message any) error {
	into, ok := message.(*[]byte)
	if !ok {
		return fmt.Errorf("%T are no bytes", message)
	}
	*into = slices.Clone(bytes)
	return nil
}
