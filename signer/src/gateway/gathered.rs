//! Writes that gather: what the tasks of a connection have ready at one moment leaves in one piece.
//!
//! One flush of the journal answers many calls. Each is a task that hands its answer to the connection, whose own task would
//! run after each of them, with a TLS record, a system call and a wake-up of the peer each time.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};

/// A stream whose flush lets the tasks that are ready run first, once. What is larger than the buffer goes through it.
pub(super) struct Gathered<S> {
    stream: BufWriter<S>,
    /// The flush that is under way has let the others run.
    gave_way: bool,
}

impl<S: AsyncWrite> Gathered<S> {
    /// Over `stream`, with a buffer of `capacity` bytes.
    pub(super) fn new(stream: S, capacity: usize) -> Self {
        Self { stream: BufWriter::with_capacity(capacity, stream), gave_way: false }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.stream.buffer().is_empty() && !std::mem::replace(&mut self.gave_way, true) {
            cx.waker().wake_by_ref(); // a task that wakes itself goes to the end of the line
            return Poll::Pending;
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.gave_way = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts the writes that reach it.
    #[derive(Default)]
    struct Counted {
        writes: usize,
        bytes: Vec<u8>,
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.writes += 1;
            self.bytes.extend_from_slice(buf);
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_is_written_while_a_flush_gives_way_leaves_with_it() {
        let mut stream = Gathered::new(Counted::default(), 100);
        let cx = &mut Context::from_waker(std::task::Waker::noop());
        for round in 1..=3 {
            assert!(Pin::new(&mut stream).poll_write(cx, b"one").is_ready());
            assert!(Pin::new(&mut stream).poll_flush(cx).is_pending());
            assert!(Pin::new(&mut stream).poll_write(cx, b"two").is_ready());
            assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
            assert!(Pin::new(&mut stream).poll_flush(cx).is_ready(), "there is nothing to gather");
            assert_eq!(stream.stream.get_ref().writes, round);
            assert_eq!(stream.stream.get_ref().bytes, b"onetwo".repeat(round));
        }
    }

    #[tokio::test]
    async fn all_of_it_arrives_whatever_its_size() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = Gathered::new(near, 100);
        let sent: Vec<u8> = (0..20_000u32).map(|n| n as u8).collect();
        let (written, expected) = (sent.clone(), sent.len());
        let writing = tokio::spawn(async move {
            for (n, part) in written.chunks(333).enumerate() {
                stream.write_all(part).await.unwrap();
                if n % 3 == 0 {
                    stream.flush().await.unwrap();
                }
            }
            stream.shutdown().await.unwrap();
        });
        let mut received = vec![0; expected];
        far.read_exact(&mut received).await.unwrap();
        assert_eq!(received, sent);
        writing.await.unwrap();
    }
}
