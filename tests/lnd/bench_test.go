package lnd

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lightningnetwork/lnd/lnrpc"
)

const (
	benchAtOnce = 16
	benchSat    = 400 // no dust, so that each payment is an output of commitments
	signPsbt    = "/walletrpc.WalletKit/SignPsbt"
)

// load is what a channel carries while payments are measured, and how many are.
type load struct {
	name             string
	inFlight         int // HTLCs that stay; lnd asks for a signature on each with every commitment
	rounds, payments int
}

var loads = []load{
	{name: "channel-without-others", rounds: 45, payments: 100},
	{name: "channel-with-150-htlcs", inFlight: 150, rounds: 40, payments: 60},
}

// contender is an lnd that pays, and where its keys are.
type contender struct {
	name   string
	lnd    *Node
	signer *Process // nil: its own
	watch  *Watch
	rates  []float64
	cpu    []float64
}

// Payments of an lnd whose keys are in Claviger, of one whose keys are in a stock lnd, and of one that keeps its own, on
// one machine, in turns: each number is of the same run, and rounds are compared with their neighbours only. At first the
// channel carries these payments alone; then HTLCs stay in it, as in a channel that forwards, and the signer has the more to do.
func BenchmarkPayments(b *testing.B) {
	w := newWorld(b)
	signer := w.signer("max_onchain_sat = 100000000\nmax_onchain_sat_per_day = 100000000\n")
	bundle := signer.add("alice")
	stockBundle := signer.addSeeded("stock")
	w.startChain(w.firstAddress(bundle))
	w.must(w.chain("generate", nil, 1))

	stock := w.lnd("stock-signer")
	stock.makeSeededWallet()
	stock.ready()
	claviger := w.watchSigner(signer.lnd, bundle)
	other := w.watchSigner(stock.rpc, stockBundle, filepath.Join(w.path("stock-signer"), "tls.cert"))
	contenders := []*contender{
		{name: "claviger", lnd: w.watchOnly("alice", bundle, claviger.address), signer: signer.Process, watch: claviger},
		{name: "stock", lnd: w.watchOnly("stocked", stockBundle, other.address), signer: stock.Process, watch: other},
		{name: "own", lnd: w.lnd("own", "--noseedbackup")},
	}
	bob := w.lnd("bob", "--noseedbackup")
	all := []*Node{bob}
	for _, contender := range contenders {
		all = append(all, contender.lnd)
	}
	bobKey := ""
	for _, node := range all {
		if info := node.ready(); node == bob {
			bobKey = info.IdentityPubkey
		}
	}
	_, err := all[1].NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_WITNESS_PUBKEY_HASH})
	w.must(err)
	w.mine(450, all...)
	for _, contender := range contenders {
		if contender.lnd != all[1] {
			address, err := contender.lnd.NewAddress(w.ctx(), &lnrpc.NewAddressRequest{Type: lnrpc.AddressType_TAPROOT_PUBKEY})
			w.must(err)
			_, err = all[1].SendCoins(w.ctx(), &lnrpc.SendCoinsRequest{Addr: address.Address, Amount: 10_000_000, SatPerVbyte: 2})
			w.must(err)
			w.mine(1, all...)
		}
	}
	signer.putInForceAllDay()
	for _, contender := range contenders {
		w.connect(contender.lnd, bob, bobKey)
		w.open(contender.lnd, bob, 4_900_000, 0)
		w.pay(contender.lnd, bob, 1_000)
	}

	for _, load := range loads {
		for index, contender := range contenders {
			staying := make([]uint16, load.inFlight)
			for at := range staying {
				staying[at] = uint16(index*load.inFlight + at + 1)
			}
			w.hold(contender.lnd, bob, benchSat, staying...)
		}
		b.Run(load.name, func(b *testing.B) { w.compete(b, load, contenders, bob) })
	}
	signer.mustNotRefuse()
}

// compete has the contenders pay in turns, and reports.
func (w *World) compete(b *testing.B, load load, contenders []*contender, to *Node) {
	for _, contender := range contenders {
		contender.rates, contender.cpu = nil, nil
		if contender.watch != nil {
			contender.watch.forget()
		}
	}
	for round := range load.rounds + 1 {
		for turn := range contenders {
			contender := contenders[(round+turn)%len(contenders)]
			rate, cpu := w.measure(contender, to, load.payments)
			if round == 0 {
				continue // warm
			}
			contender.rates, contender.cpu = append(contender.rates, rate), append(contender.cpu, cpu)
		}
	}
	for _, contender := range contenders {
		b.ReportMetric(median(contender.rates), contender.name+"-payments/s")
		if contender.watch != nil {
			p50, p99 := contender.watch.quantiles(signPsbt)
			b.ReportMetric(p50.Seconds()*1e3, contender.name+"-signpsbt-p50-ms")
			b.ReportMetric(p99.Seconds()*1e3, contender.name+"-signpsbt-p99-ms")
			b.ReportMetric(mean(contender.cpu), contender.name+"-signer-cpu-ms/payment")
		}
	}
	for _, other := range contenders[1:] {
		middle, whole, err := compare(contenders[0].rates, other.rates)
		b.ReportMetric(middle, "throughput-to-"+other.name)
		b.ReportMetric(whole, "throughput-to-"+other.name+"-overall")
		b.ReportMetric(err, "throughput-to-"+other.name+"-error")
	}
}

// measure pays many at once; it returns payments per second and the signer's CPU time for each, in ms.
func (w *World) measure(from *contender, to *Node, payments int) (rate, cpu float64) {
	if from.watch != nil {
		from.watch.measuring.Store(true)
		defer from.watch.measuring.Store(false)
	}
	before, start := from.cpuTime(w), time.Now()
	var all sync.WaitGroup
	turns := make(chan struct{}, benchAtOnce)
	for range payments {
		all.Add(1)
		turns <- struct{}{}
		go func() {
			defer func() { <-turns; all.Done() }()
			if err := w.payOnce(from.lnd, to, benchSat); err != nil {
				w.t.Errorf("%s: a payment failed: %v", from.name, err)
			}
		}()
	}
	all.Wait()
	took := time.Since(start)
	return float64(payments) / took.Seconds(), (from.cpuTime(w) - before).Seconds() * 1e3 / float64(payments)
}

// cpuTime is what the signer's process has used.
func (c *contender) cpuTime(w *World) time.Duration {
	if c.signer == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.signer.Process.Pid))
	w.must(err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime, proc(5)
		value, err := strconv.ParseInt(field, 10, 64)
		w.must(err)
		ticks += value
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// compare returns the median of the ratios of neighbouring rounds, the ratio over all rounds, and the standard error of the
// ratios' mean: a difference smaller than that says nothing.
func compare(a, b []float64) (middle, whole, err float64) {
	var ratios []float64
	var times, otherTimes, sum, squares float64
	for round := range a {
		ratio := a[round] / b[round]
		ratios = append(ratios, ratio)
		times, otherTimes = times+1/a[round], otherTimes+1/b[round]
		sum, squares = sum+ratio, squares+ratio*ratio
	}
	n := float64(len(ratios))
	return median(ratios), otherTimes / times, math.Sqrt((squares/n - sum/n*sum/n) / (n - 1))
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, value := range values {
		sum += value
	}
	return sum / float64(len(values))
}

func median(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	return values[len(values)/2]
}
