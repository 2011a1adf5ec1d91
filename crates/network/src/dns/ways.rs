//! Sockets by which others are asked, used again. To make one takes longer than to ask by it: it is made in the
//! container's namespace, and its first datagram begins a conversation for every connection table on the way.
//!
//! Whoever would forge an answer has to name the port that a question came from while it is under way, and the number of
//! the question. So a socket carries one question at a time, one that is spare is taken by chance, and none is kept
//! longer than it takes to find its port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::PORT;

/// Spare ones of one namespace.
const MOST: usize = 64;
/// Spare ones in all.
const MOST_IN_ALL: usize = 1024;
/// How long one is good.
const LIFE: Duration = Duration::from_secs(1);
/// How many questions it carries in its life.
const QUESTIONS: u32 = 128;

/// A socket that is connected to one server: nobody else is heard on it.
pub(super) struct Way {
    pub(super) socket: UdpSocket,
    server: IpAddr,
    made: Instant,
    asked: u32,
}

impl Way {
    /// From the namespace of the calling thread.
    pub(super) fn make(server: IpAddr) -> io::Result<Self> {
        let any: IpAddr = match server {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // The kernel chooses a port that nobody can guess.
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.connect(SocketAddr::new(server, PORT))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, server, made: Instant::now(), asked: 0 })
    }

    fn is_young(&self) -> bool {
        self.made.elapsed() < LIFE && self.asked < QUESTIONS
    }
}

/// How many may be spare in all, shared by all who have some.
#[derive(Clone)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_IN_ALL)))
    }
}

/// The spare ones of one namespace. They hold it: whoever it is for closes them.
pub(super) struct Ways {
    room: Room,
    spare: Mutex<Spare>,
}

#[derive(Default)]
struct Spare {
    ways: Vec<(Way, OwnedSemaphorePermit)>,
    /// Somebody looks after those that nobody takes.
    watched: bool,
    /// Raised when all have to go, those that are asked by at the moment too.
    age: u64,
    closed: bool,
}

/// A way under way, and the age of what it is given back to.
pub(super) struct Taken {
    pub(super) way: Way,
    age: u64,
}

impl Ways {
    pub(super) fn new(room: Room) -> Arc<Self> {
        Arc::new(Self { room, spare: Mutex::default() })
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One to this server: a spare one, whichever `chance` says, or one that is made.
    pub(super) fn take(
        &self,
        server: IpAddr,
        chance: usize,
        make: impl FnOnce() -> io::Result<Way>,
    ) -> io::Result<Taken> {
        let (age, found) = {
            let mut spare = self.spare();
            spare.ways.retain(|(way, _)| way.is_young());
            let fits = |(_, (way, _)): &(usize, &(Way, _))| way.server == server;
            let count = spare.ways.iter().enumerate().filter(fits).count();
            let chosen = chance.checked_rem(count);
            let at = chosen.and_then(|nth| spare.ways.iter().enumerate().filter(fits).nth(nth));
            let at = at.map(|(at, _)| at);
            (spare.age, at.map(|at| spare.ways.swap_remove(at).0))
        };
        let way = found.map_or_else(make, Ok)?;
        Ok(Taken { way, age })
    }

    /// After the answer: nothing is under way on it any more.
    pub(super) fn give_back(self: &Arc<Self>, taken: Taken) {
        let Taken { mut way, age } = taken;
        way.asked += 1;
        let mut spare = self.spare();
        if spare.closed || age != spare.age || spare.ways.len() >= MOST || !way.is_young() {
            return;
        }
        let Ok(room) = Arc::clone(&self.room.0).try_acquire_owned() else { return };
        spare.ways.push((way, room));
        if !std::mem::replace(&mut spare.watched, true) {
            tokio::spawn(Self::watch(Arc::downgrade(self)));
        }
    }

    /// Where the namespace has another address now: none leads anywhere from the old one.
    pub(super) fn renew(&self) {
        let mut spare = self.spare();
        spare.age += 1;
        spare.ways = Vec::new();
    }

    /// For good.
    pub(super) fn close(&self) {
        self.spare().closed = true;
        self.renew();
    }

    async fn watch(ways: Weak<Self>) {
        loop {
            tokio::time::sleep(LIFE).await;
            let Some(ways) = ways.upgrade() else { return };
            let mut spare = ways.spare();
            spare.ways.retain(|(way, _)| way.is_young());
            if spare.ways.is_empty() {
                // Nothing of a busy moment stays.
                spare.ways = Vec::new();
                spare.watched = false;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ANOTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

    fn take(ways: &Ways, server: IpAddr) -> Taken {
        ways.take(server, 0, || Way::make(server)).unwrap()
    }

    fn port(taken: &Taken) -> u16 {
        taken.way.socket.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn one_question_at_a_time_and_not_for_long() {
        let ways = Ways::new(Room::default());
        let (one, other) = (take(&ways, SERVER), take(&ways, SERVER));
        let ports = BTreeSet::from([port(&one), port(&other)]);
        assert_eq!(ports.len(), 2, "both are under way");
        ways.give_back(one);
        ways.give_back(other);
        let elsewhere = take(&ways, ANOTHER);
        assert!(!ports.contains(&port(&elsewhere)), "it leads to another server");
        let (one, other) = (take(&ways, SERVER), take(&ways, SERVER));
        assert_eq!(ports, BTreeSet::from([port(&one), port(&other)]));
        drop(other);
        let mut lives = 1;
        let mut taken = one;
        for _ in 0..QUESTIONS * 2 {
            let before = port(&taken);
            ways.give_back(taken);
            taken = take(&ways, SERVER);
            lives += u32::from(port(&taken) != before);
        }
        assert!((3..=4).contains(&lives), "{lives} ports for {} questions", QUESTIONS * 2);
    }

    #[tokio::test]
    async fn which_one_is_a_matter_of_chance() {
        let ways = Ways::new(Room::default());
        let taken: Vec<_> = (0..3).map(|_| take(&ways, SERVER)).collect();
        let ports: Vec<_> = taken.iter().map(port).collect();
        taken.into_iter().for_each(|one| ways.give_back(one));
        for chance in [1, 5, 301] {
            let taken = ways.take(SERVER, chance, || unreachable!()).unwrap();
            assert!(ports.contains(&port(&taken)));
        }
        assert!(ways.spare().ways.is_empty());
    }

    #[tokio::test]
    async fn what_is_spare_is_bounded_and_goes() {
        let room = Room(Arc::new(Semaphore::new(MOST + 1)));
        let (one, other) = (Ways::new(room.clone()), Ways::new(room.clone()));
        for ways in [&one, &other] {
            let taken: Vec<_> = (0..MOST + 5).map(|_| take(ways, SERVER)).collect();
            taken.into_iter().for_each(|taken| ways.give_back(taken));
        }
        assert_eq!((one.spare().ways.len(), other.spare().ways.len()), (MOST, 1));
        let under_way = take(&one, SERVER);
        one.renew();
        one.give_back(under_way);
        assert_eq!(one.spare().ways.len(), 0, "of another age");
        other.close();
        assert_eq!(room.0.available_permits(), MOST + 1);
        let taken = take(&other, SERVER);
        other.give_back(taken);
        assert_eq!(other.spare().ways.len(), 0, "nobody would close it");
    }

    #[tokio::test]
    async fn nothing_stays_of_a_busy_moment() {
        let ways = Ways::new(Room::default());
        let taken = take(&ways, SERVER);
        ways.give_back(taken);
        while ways.spare().watched {
            tokio::time::sleep(LIFE / 10).await;
        }
        assert_eq!(ways.spare().ways.capacity(), 0);
    }
}
