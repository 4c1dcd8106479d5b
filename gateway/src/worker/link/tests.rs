use super::*;
use std::cell::RefCell;

/// Keeps the last byte of each packet that it is given.
#[derive(Default)]
struct Sink(RefCell<Vec<u8>>);

impl FrameSink for Sink {
    fn send(&self, _: &Offload, _: u16, _: &[u8], parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let last = parts.iter().rev().find_map(|part| part.last());
        self.0.borrow_mut().push(*last.unwrap());
        Ok(())
    }
}

fn packet(v6: bool, number: u8) -> Vec<u8> {
    let mut packet = vec![0; if v6 { 40 } else { 20 }];
    if v6 {
        (packet[0], packet[5], packet[6], packet[7]) = (0x60, 1, 59, 64);
    } else {
        (packet[0], packet[3], packet[8], packet[9]) = (0x45, 21, 64, 253);
        let sum = crate::pipeline::checksum::Sum::of(&packet).checksum();
        packet[10..12].copy_from_slice(&sum);
    }
    packet.push(number);
    packet
}

#[test]
fn nothing_overtakes_what_waits_for_its_next_hop() {
    let words = [(); 2].map(|()| Arc::new(NeighborWord::default()));
    let recipe = LinkRecipe {
        interface: "none".to_owned(),
        tags: Tags::NONE,
        mac: Some([2; 6]),
        offload: true,
        fanout: None,
    };
    let (ledger, now) = (Arc::new(Ledger::new(4)), Instant::now());
    let mut link = LinkPort::<Sink>::new(
        (PathId(0), 0),
        recipe,
        Arc::default(),
        [0, 1].map(|n| Some(Arc::clone(&words[n]))),
        Arc::new(Waker::new().unwrap()),
        Arc::clone(&ledger),
    );
    link.attach(Sink::default(), Framing::new(Tags::NONE, [2; 6]));
    let send = |link: &mut LinkPort<Sink>, v6, number| {
        let packet = packet(v6, number);
        let headers = Headers::parse(&packet).unwrap();
        link.send(now, &packet, &headers, &Offload::default());
        link.socket().unwrap().0.0.borrow().clone()
    };
    for number in 1..=3 {
        assert!(send(&mut link, false, number).is_empty());
        assert!(send(&mut link, true, 10 + number).is_empty());
    }
    words[0].publish(Some([4; 6]));
    assert_eq!(send(&mut link, false, 4), [1, 2, 3, 4]);
    assert_eq!(
        send(&mut link, true, 14),
        [1, 2, 3, 4],
        "that one is not known"
    );
    words[1].publish(Some([6; 6]));
    assert_eq!(send(&mut link, true, 15), [1, 2, 3, 4, 11, 12, 13, 14, 15]);
    assert!(!link.has_waiting());
    assert_eq!(link.waits, [0, 0]);
}
