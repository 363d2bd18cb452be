//! The control listener where others reach it: who is answered there, and that nobody keeps the operator
//! from it.

use std::io::{ErrorKind::WouldBlock, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use crate::client::Client;
use crate::control::{node, status};
use crate::harness::{Node, Server};

/// More connections than the listener has places.
const CROWD: usize = 100;

/// Where the control port is.
fn port(server: &Server) -> SocketAddr {
    let line = server.wait_for_log("control on ");
    line.rsplit("http://").next().unwrap().trim().parse().unwrap()
}

/// The status of the answer to who asks for `/status` of `host`.
fn ask(address: SocketAddr, host: &str) -> u16 {
    let mut client = Client::connect(address);
    client.send(format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.answer().status
}

/// Every user of the machine, and every page in its browsers, reaches a port.
#[test]
fn a_port_is_for_whoever_says_something_under_its_own_name() {
    let node = Node::new().winglet("control: 127.0.0.1:0");
    let server = node.start();
    let address = port(&server);
    let ask = |host: &str| ask(address, host);
    assert_eq!((ask("evil.example.com"), ask("127.0.0.1.example.com:80")), (400, 400));
    assert_eq!((ask("localhost:1"), ask("[::1]:1"), ask("127.0.0.1")), (200, 200, 200));
    let silent: Vec<Client> = (0..CROWD).map(|_| Client::connect(address)).collect();
    assert_eq!(ask("localhost"), 200, "connections that say nothing give way");
    drop(silent);
}

/// Asks for answers that are never read, as many as are taken. The server is stuck with one of them.
fn ask_in_vain(stream: &mut impl Write) {
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    loop {
        match stream.write(requests.as_bytes()) {
            Ok(_) => {}
            Err(error) if error.kind() == WouldBlock => return,
            // It was closed for another one.
            Err(_) => return,
        }
    }
}

#[test]
fn pipelines_that_are_never_read_do_not_lock_the_operator_out() {
    let on_port = Node::new().winglet("control: 127.0.0.1:0");
    let server = on_port.start();
    let address = port(&server);
    let mut crowd: Vec<TcpStream> = (0..CROWD)
        .map(|_| {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        crowd.iter_mut().for_each(ask_in_vain);
        assert_eq!(ask(address, "localhost"), 200);
    }
    drop((crowd, server));

    // At a socket file, whose permissions let root and the server's user in, and nobody else.
    let on_file = node("");
    let _server = on_file.start();
    let mut crowd: Vec<UnixStream> = (0..CROWD)
        .map(|_| {
            let stream = UnixStream::connect(on_file.path().join("control.sock")).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        crowd.iter_mut().for_each(ask_in_vain);
        assert_eq!(status(&on_file)["links"]["tracked"], 0);
    }
}
