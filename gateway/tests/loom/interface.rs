//! A link whose interface is replaced while its workers open their sockets: `worker/interface.rs`, all of it.
//! A model of a few lines is the kernel's fanout group, which lets nobody in while it has a member on another
//! interface, and numbers its members as they come.

use crate::device::event::Poller;
use crate::explore_within;
use crate::wake::work;
use crate::worker::bell::Bell;
use crate::worker::interface::{LinkFacts, LinkWord, Opened, Opening};
use loom::sync::Mutex;
use loom::thread;
use std::sync::Arc;
use std::time::Instant;

/// The workers' sockets: worker and interface of each.
#[derive(Default)]
struct Group(Mutex<Vec<(u16, u32)>>);

/// A socket, and a place in the group while it lives.
struct Member {
    group: Arc<Group>,
    worker: u16,
}

impl Group {
    fn join(self: &Arc<Self>, worker: u16, interface: u32) -> Result<Member, &'static str> {
        let mut members = self.0.lock().unwrap();
        if members.iter().any(|&(_, other)| other != interface) {
            return Err("EINVAL");
        }
        members.push((worker, interface));
        Ok(Member {
            group: Arc::clone(self),
            worker,
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.group.0.lock().unwrap();
        members.retain(|&(worker, _)| worker != self.worker);
    }
}

fn facts(generation: u32) -> LinkFacts {
    LinkFacts {
        generation,
        index: generation,
        mtu: 1500,
        up: true,
    }
}

/// Two workers with a socket each on the first interface, or one of them on its way there, when the second comes:
/// both end with a socket on the second, numbered as the workers are.
pub(crate) fn workers_move_to_the_next_interface_together() {
    // With three threads that sleep and wake, one preemption takes 0.2 s and a second one minutes.
    explore_within(1, || {
        let (word, group) = (Arc::new(LinkWord::default()), Arc::new(Group::default()));
        let mut pollers = Vec::new();
        let mut bell = || {
            let bell = Arc::new(Bell::new().unwrap());
            pollers.push(Poller::of_last());
            bell
        };
        let bells: Arc<[_]> = [bell(), bell()].into();
        word.publish(facts(1));
        let mut openings = [0, 1].map(|n| Opening::new(n, Some(Arc::clone(&bells))));
        // The first worker is made before the threads run, as it is in the program.
        let mut first = None;
        let join = |worker, interface| group.join(worker, interface);
        let done = openings[0].refresh(&word, Instant::now(), &mut first, || join(0, 1));
        assert_eq!(done, Opened::Done { at_last: false });
        let [one, two] = openings;
        let mut pollers = pollers.into_iter();
        let mut start = |number: u16, mut opening: Opening, mut socket: Option<Member>| {
            let poller = pollers.next().unwrap();
            let (word, group, bells) = (Arc::clone(&word), Arc::clone(&group), Arc::clone(&bells));
            move || {
                work(&bells[usize::from(number)], &poller, || {
                    if opening.is_behind(&word) {
                        // The kernel is asked for the name, and gives what has it now.
                        let open = || group.join(number, word.read().index);
                        let now = Instant::now();
                        let seen = opening.refresh(&word, now, &mut socket, open);
                        // Who is refused has been overtaken, and begins anew without waiting.
                        let is_refused = matches!(seen, Opened::Failed(_));
                        assert!(!is_refused || opening.is_behind(&word) && word.read().index == 2);
                    }
                    // A socket may be on the second before its worker has heard of that: it begins anew then.
                    opening.generation() == 2 && !opening.is_behind(&word) && socket.is_some()
                });
                socket
            }
        };
        let one = thread::spawn(start(0, one, first));
        let two = thread::spawn(start(1, two, None));
        word.publish(facts(2));
        bells.iter().for_each(|bell| bell.ring());
        let sockets = [one.join().unwrap(), two.join().unwrap()];
        assert_eq!(*group.0.lock().unwrap(), [(0, 2), (1, 2)]);
        drop(sockets);
    });
}
