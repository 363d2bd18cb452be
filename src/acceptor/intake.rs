//! From a fresh connection to a queued request: accepting, limits, reading and screening heads.

use std::io;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::connections::Phase;
use super::{ACCEPT_PAUSE, ACCEPTS, Acceptor, TAG_LISTENERS};
use crate::http::head::{Field, Head, Method, Route, Screened, screen};
use crate::http::refusal::{Busy, Refusal};
use crate::net::address::{ClientKey, Peer};
use crate::net::listener::Accepted;
use crate::net::socket::Socket;
use crate::pool::exchange::{Connection, Exchange};

impl Acceptor {
    pub(super) fn accept_from(&mut self, listener: usize) {
        let mut shed = false;
        for _ in 0..ACCEPTS {
            let Some(source) = self.parts.listeners.get(listener) else { return };
            let tls = source.is_tls();
            match source.accept() {
                Ok((accepted, peer)) => self.admit(accepted, peer, tls),
                Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::WOULDBLOCK) => return,
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) if !shed => {
                        self.noise.descriptors.warn(Instant::now(), || {
                            format!("{error}; closing the connection that has waited longest")
                        });
                        shed = self.shed();
                        if !shed {
                            self.pause_accepting();
                            return;
                        }
                    }
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        self.pause_accepting();
                        return;
                    }
                    // The one connection is gone; the next is another matter.
                    _ => {}
                },
            }
        }
    }

    /// Closes the connection that has waited longest. `false` where none waits.
    fn shed(&mut self) -> bool {
        match self.slots.longest_waiting() {
            Some(index) => {
                self.close(index);
                true
            }
            None => false,
        }
    }

    /// Stops watching the listeners until something closes, or a moment has passed: the kernel
    /// would report them ready for ever.
    fn pause_accepting(&mut self) {
        self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
        self.watch_listeners(EventFlags::empty());
    }

    pub(super) fn resume_accepting(&mut self) {
        self.accept_again = None;
        self.watch_listeners(EventFlags::IN);
    }

    fn watch_listeners(&self, flags: EventFlags) {
        for (index, listener) in self.parts.listeners.iter().enumerate() {
            let data = EventData::new_u64(TAG_LISTENERS + index as u64);
            let _ = epoll::modify(&self.epoll, listener, data, flags);
        }
    }

    /// Takes a fresh connection in, within the limits.
    fn admit(&mut self, accepted: Accepted, peer: Peer, tls: bool) {
        let now = Instant::now();
        let bound = self.settings.config.max_connections.min(self.parts.descriptor_room).max(1);
        if self.slots.len() >= bound {
            self.noise.evicted.warn(now, || {
                format!("{bound} connections; closing the one that has waited longest")
            });
            if !self.shed() {
                // Everybody is being served: the newcomer has to come again.
                return;
            }
        }
        let share =
            if peer.is_proxy(&self.settings.config) { None } else { peer.ip().map(ClientKey::of) };
        if let Some(key) = share
            && self.slots.waiting_of(key) >= self.settings.config.max_connections_per_address
            && let Some(oldest) = self.slots.longest_waiting_of(key)
        {
            self.shed_share(key, oldest);
        }
        let Some(socket) = self.open_socket(accepted, tls) else { return };
        let connection = Box::new(Connection { socket, input: Vec::new(), requests: 0 });
        let index = self.slots.insert(peer, share, connection);
        // Most clients have sent their head by now: the fast path touches no index and no timer.
        self.read_input(index);
        if let Some(slot) = self.slots.get(index)
            && matches!(slot.phase, Phase::Head)
            && slot.connection.as_ref().is_some_and(|connection| connection.requests == 0)
        {
            self.slots.start_waiting(index);
            self.slots.set_expiry(index, Some(now + self.settings.config.timeouts.head));
        }
    }

    #[cfg(feature = "tls")]
    fn open_socket(&self, accepted: Accepted, tls: bool) -> Option<Socket> {
        if !tls {
            return Some(accepted.into());
        }
        let Accepted::Tcp(stream) = accepted else { return None };
        let certificates = self.parts.tls.as_ref()?;
        Some(Socket::tls(crate::net::tls::TlsStream::new(stream, certificates).ok()?))
    }

    #[cfg(not(feature = "tls"))]
    fn open_socket(&self, accepted: Accepted, _tls: bool) -> Option<Socket> {
        Some(accepted.into())
    }

    pub(super) fn has_input(&self, index: usize) -> bool {
        let connection = self.slots.get(index).and_then(|slot| slot.connection.as_ref());
        connection.is_some_and(|connection| !connection.input.is_empty())
    }

    /// Uses what has been read already, then reads on.
    pub(super) fn go_on(&mut self, index: usize) {
        if self.has_input(index) && !self.use_input(index) {
            return;
        }
        let Some(slot) = self.slots.get(index) else { return };
        if slot.connection.as_ref().is_some_and(|connection| connection.socket.is_tls()) {
            // What is decrypted already raises no event.
            self.read_input(index);
        } else {
            self.arm(index);
        }
    }

    /// Reads what `index` has sent and acts on it.
    pub(super) fn read_input(&mut self, index: usize) {
        loop {
            let Some(slot) = self.slots.get_mut(index) else { return };
            let Some(connection) = &mut slot.connection else { return };
            match connection.socket.read(&mut self.scratch) {
                Ok(0) => return self.client_finished(index),
                Ok(count) => {
                    if connection.input.is_empty() {
                        self.begin_head(index);
                    }
                    let Some(slot) = self.slots.get_mut(index) else { return };
                    let Some(connection) = &mut slot.connection else { return };
                    connection.input.extend_from_slice(&self.scratch[..count]);
                    if slot.watch.is_some() {
                        return self.look_at_delivery(index, true);
                    }
                    if !self.use_input(index) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.arm(index);
                }
                Err(error) => return self.input_failed(index, &error),
            }
        }
    }

    /// The first byte of a further request has come: from here on the head has its deadline.
    fn begin_head(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        let later = slot.connection.as_ref().is_some_and(|connection| connection.requests > 0);
        if later && slot.watch.is_none() {
            let head = self.settings.config.timeouts.head;
            self.slots.set_expiry(index, Some(Instant::now() + head));
        }
    }

    fn input_failed(&mut self, index: usize, error: &io::Error) {
        #[cfg(feature = "tls")]
        if crate::net::tls::is_plain_http(error) {
            return self.refuse_plain(index);
        }
        log::debug!("connection closed: {error}");
        self.close(index);
    }

    fn client_finished(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        match &mut slot.watch {
            Some(watch) => {
                watch.saw_fin();
                self.look_at_delivery(index, false);
            }
            // With half a head read, too: nobody is there to read an answer.
            None => self.close(index),
        }
    }

    /// Screens the input. `true` where more bytes are needed.
    fn use_input(&mut self, index: usize) -> bool {
        let Some(slot) = self.slots.get_mut(index) else { return false };
        let Some(connection) = &mut slot.connection else { return false };
        match screen(&connection.input, slot.screened) {
            Screened::Incomplete => {
                slot.screened = connection.input.len();
                true
            }
            Screened::Ready(head, length) => {
                if length == connection.input.len() {
                    // Frees the buffer: a connection at work keeps none.
                    connection.input = Vec::new();
                } else {
                    connection.input.drain(..length);
                }
                slot.screened = 0;
                self.dispatch(index, head);
                false
            }
            Screened::Refused(head, refusal) => {
                self.refuse_and_close(index, head.as_deref(), &refusal);
                false
            }
        }
    }

    /// Answers a sound request, or queues it for a worker.
    fn dispatch(&mut self, index: usize, head: Box<Head>) {
        match (head.route, head.method) {
            (Route::Unknown, Method::Options) | (Route::Asterisk, Method::Options) => {
                self.answer_options(index, &head);
            }
            (Route::Unknown, _) => self.refuse(index, Some(&head), &Refusal::UnknownPath),
            (_, Method::Options) => self.answer_options(index, &head),
            (_, Method::Other) | (Route::Asterisk, _) => {
                self.refuse(index, Some(&head), &Refusal::Method);
            }
            (Route::Health, _) => self.answer_health(index, &head),
            (Route::Download(_), _) => self.enqueue(index, head),
        }
    }

    fn enqueue(&mut self, index: usize, head: Box<Head>) {
        let number = self.slots.number(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let client =
            slot.peer.client(head.list(Field::XForwardedFor).as_deref(), &self.settings.config);
        let key = client.map(ClientKey::of);
        // Whoever is over its share of workers waits, but not without end: queued requests are not
        // closed for newcomers, so that one address could take all connections.
        if let Some(key) = key
            && self.queue.blocked_of(key) >= self.settings.config.max_connections_per_address
        {
            return self.refuse_busy(index, &head, Some(key), Busy::ClientShare);
        }
        self.slots.stop_waiting(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.stream_of = key;
        slot.phase = Phase::Queued(head);
        self.queue.push(number, key);
        self.hand_over_now();
        if self.slots.get(index).is_some_and(|slot| matches!(slot.phase, Phase::Queued(_))) {
            let queue = self.settings.config.timeouts.queue;
            self.slots.set_expiry(index, Some(Instant::now() + queue));
            self.arm(index);
        }
    }

    /// Gives free workers what is queued, without flushing: a batch of requests is one write.
    pub(super) fn hand_over_now(&mut self) {
        let now = Instant::now();
        while let Some(number) = self.queue.pop(now) {
            match self.slots.find(number) {
                Some(index) => self.give(index),
                None => self.queue.worker_is_free(number),
            }
        }
    }

    /// Hands the request of `index` to a worker.
    pub(super) fn give(&mut self, index: usize) {
        let number = self.slots.number(index);
        self.slots.set_expiry(index, None);
        let draining = self.draining.is_some();
        let max_requests = super::MAX_REQUESTS;
        let Some(slot) = self.slots.get_mut(index) else {
            return self.queue.worker_is_free(number);
        };
        let phase = std::mem::replace(&mut slot.phase, Phase::Busy);
        let (Phase::Queued(head), Some(connection)) = (phase, slot.connection.take()) else {
            return self.queue.worker_is_free(number);
        };
        let forwarded = head.list(Field::XForwardedFor);
        let client = slot.peer.client(forwarded.as_deref(), &self.settings.config);
        drop(forwarded);
        let last = draining || connection.requests + 1 >= max_requests;
        self.parts.private.push(head.method, &head.target, number);
        let returns = self.parts.shared.returns.clone();
        let exchange = Exchange::new(number, head, client, last, connection, returns);
        self.parts.shared.handed.put(exchange);
        self.busy += 1;
    }

    pub(super) fn queue_deadline(&mut self, index: usize) {
        let number = self.slots.number(index);
        let Some(slot) = self.slots.get_mut(index) else { return };
        let key = slot.stream_of.take();
        let Phase::Queued(head) = std::mem::replace(&mut slot.phase, Phase::Head) else { return };
        let busy = if self.queue.remove(number, key) { Busy::ClientShare } else { Busy::Workers };
        self.refuse_busy(index, &head, key, busy);
    }

    fn refuse_busy(&mut self, index: usize, head: &Head, key: Option<ClientKey>, busy: Busy) {
        self.noise.busy.warn(Instant::now(), || {
            let client = key.map_or_else(|| "-".to_owned(), |key| key.to_string());
            format!("{client}: {}", Refusal::Busy(busy).cause())
        });
        self.refuse(index, Some(head), &Refusal::Busy(busy));
    }

    pub(super) fn head_deadline(&mut self, index: usize) {
        let Some(slot) = self.slots.get(index) else { return };
        let Some(connection) = &slot.connection else { return };
        if connection.input.is_empty() {
            // Nothing of a request has come: there is nothing to answer.
            self.close(index);
        } else {
            self.refuse_and_close(index, None, &Refusal::HeadTimeout);
        }
    }
}
