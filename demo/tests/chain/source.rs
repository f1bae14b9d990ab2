//! The bitcoind source: right answers, and a name for everything that can go wrong.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::world::{World, loopback};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Network};
use claviger::chain::{Auth, BitcoindSource, ChainSource, SourceError, Tip, starting_point};

#[test]
fn it_tells_what_the_chain_holds() {
    let world = World::new();
    let source = world.source();
    let (height, hash) = world.chain.tip();
    assert_eq!(source.tip(), Ok(Tip { height, hash, syncing: false }));
    assert_eq!(source.hash_at(height), Ok(Some(hash)));
    assert_eq!(source.hash_at(height + 1), Ok(None));
    let block = world.chain.block_at(height).unwrap();
    assert_eq!(source.header(&hash), Ok(block.header));
    assert_eq!(source.block(&hash), Ok((*block).clone()));
    assert_eq!(starting_point(&source, 6).unwrap().height, height - 6);
    assert_eq!(starting_point(&source, height + 1).unwrap().height, 0);
}

#[test]
fn an_unknown_block_is_an_answer() {
    let error = World::new().source().block(&BlockHash::all_zeros()).unwrap_err();
    assert_eq!(error, SourceError::Rpc { method: "getblock", code: -5, message: "Block not found".to_owned() });
}

#[test]
fn a_new_cookie_is_found_and_a_wrong_one_is_named() {
    let world = World::new();
    let source = world.source();
    let cookie = world.server.as_ref().unwrap().cookie_file();
    let right = std::fs::read_to_string(cookie).unwrap();
    std::fs::write(cookie, "__cookie__:wrong").unwrap();
    assert!(matches!(source.tip(), Err(SourceError::Unauthorized { .. })));
    std::fs::remove_file(cookie).unwrap();
    assert!(matches!(source.tip(), Err(SourceError::Credentials { .. })));
    std::fs::write(cookie, right).unwrap();
    assert!(source.tip().is_ok());
}

#[test]
fn a_user_and_a_password_file_serve_as_well() {
    let world = World::new();
    let server = world.server.as_ref().unwrap();
    let cookie = std::fs::read_to_string(server.cookie_file()).unwrap();
    let (user, password) = cookie.split_once(':').unwrap();
    let password_file = world.dir.path().join("password");
    std::fs::write(&password_file, format!("{password}\n")).unwrap();
    let auth = Auth::UserPassword { user: user.to_owned(), password_file };
    let source = BitcoindSource::new(&server.url(), auth, Network::Regtest).unwrap();
    assert_eq!(source.tip().unwrap().height, world.chain.height());
}

#[test]
fn it_connects_again_by_itself() {
    let mut world = World::new();
    let source = world.source();
    assert!(source.tip().is_ok());
    let addr = world.stop_server();
    std::fs::write(world.dir.path().join("cookie"), "a:b").unwrap();
    assert!(matches!(source.tip(), Err(SourceError::Unreachable { .. })));
    world.start_server(addr);
    assert!(source.tip().is_ok());
}

#[test]
fn another_network_is_refused() {
    let error = World::new().source_on(Network::Bitcoin).tip().unwrap_err();
    assert_eq!(error, SourceError::WrongNetwork { expected: Network::Bitcoin, found: "regtest".to_owned() });
}

#[test]
fn an_address_must_be_plain_http_without_credentials() {
    let auth = Auth::Cookie("cookie".into());
    for bad in ["", "127.0.0.1:8332", "https://127.0.0.1:8332", "http://", "http://user:hunter2@127.0.0.1:8332"] {
        let error = BitcoindSource::new(bad, auth.clone(), Network::Regtest).err().unwrap();
        assert!(matches!(error, SourceError::BadUrl { .. }), "{bad}");
        assert!(!error.to_string().contains("hunter2"));
    }
    assert!(BitcoindSource::new("http://[::1]:18443", auth, Network::Regtest).is_ok());
}

/// Answers every connection once with `reply` and closes it.
fn peer_that_says(reply: &'static str) -> String {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    url
}

#[test]
fn nonsense_is_an_error_and_not_a_hang() {
    let dir = tempfile::tempdir().unwrap();
    let cookie = dir.path().join("cookie");
    std::fs::write(&cookie, "a:b").unwrap();
    let says = |reply| {
        let auth = Auth::Cookie(cookie.clone());
        BitcoindSource::new(&peer_that_says(reply), auth, Network::Regtest).unwrap().tip().unwrap_err()
    };
    let unreachable = |reply| matches!(says(reply), SourceError::Unreachable { .. });
    let garbage = |reply| matches!(says(reply), SourceError::Garbage { .. });
    assert!(unreachable(""));
    assert!(unreachable("SSH-2.0-OpenSSH_9.2\r\n"));
    assert!(unreachable("HTTP/1.1 200 OK\r\nContent-Le"), "it stops in the middle of the head");
    assert!(unreachable("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), "it stops in the middle of the body");
    assert!(unreachable("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{"));
    assert!(garbage("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"));
    assert!(garbage("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"));
    assert!(garbage("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"));
    assert!(garbage("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"result\":[]}"));
    let other = says("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    assert!(
        matches!(other, SourceError::Garbage { .. } | SourceError::Unreachable { .. }),
        "redirects are not followed"
    );
}
