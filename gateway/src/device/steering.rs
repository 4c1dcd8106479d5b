//! Programs in the kernel that share packets out over the workers, so that a flow is read by one worker, and
//! by the same one in both directions:
//!
//! | where | program | rule |
//! |---|---|---|
//! | TUN queues (TUNSETSTEERINGEBPF, Linux 4.16) | eBPF, [`FlowProgram`] | hash of addresses and ports, the same for both directions |
//! | packet sockets of a link (PACKET_FANOUT_EBPF, Linux 4.3) | the same | the same |
//! | UDP sockets on one port (SO_ATTACH_REUSEPORT_CBPF, Linux 4.5) | classic BPF, [`by_receiver_index`] | the worker's number, which the engine has put into the receiver index |
//!
//! The kernel's own rules would not do: a TUN device moves a flow to another queue once it has learned where
//! the other direction is written, which can put two packets of a flow in the wrong order, and its hash is not
//! that of a packet socket.

use super::error::{DeviceError, Privilege};
use super::socket::check;
use rustix::io::Errno;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction (`struct bpf_insn`, linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination register in the low four bits, source register in the high four.
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Operation codes (linux/bpf_common.h, linux/bpf.h): class, then operation or size and mode, then K or X.
const MOV64_X: u8 = 0xbf;
const MOV32_K: u8 = 0xb4;
const AND32_K: u8 = 0x54;
const LSH32_K: u8 = 0x64;
const RSH32_K: u8 = 0x74;
const MUL32_K: u8 = 0x24;
const MOD32_K: u8 = 0x94;
const XOR32_X: u8 = 0xac;
const MOV32_X: u8 = 0xbc;
const JEQ_K: u8 = 0x15;
const JNE_K: u8 = 0x55;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;
/// Load from the packet at a fixed place, in network order, into register 0; ends the program with 0 if the
/// packet is shorter.
const LOAD_BYTE: u8 = 0x30;
const LOAD_HALF: u8 = 0x28;
const LOAD_WORD: u8 = 0x20;
/// The same at a place that a register gives.
const LOAD_HALF_AT: u8 = 0x48;

/// Register with the packet, as the loads above want it.
const PACKET: u8 = 6;
/// Register with the hash so far.
const HASH: u8 = 7;
/// Register with the length of an IPv4 header.
const HEADER: u8 = 8;
/// Register with the ports.
const PORTS: u8 = 9;

/// Odd constants of MurmurHash3's finaliser: they spread neighbouring addresses and ports.
const FIRST_FACTOR: u32 = 0x85eb_ca6b;
const SECOND_FACTOR: u32 = 0xc2b2_ae35;

/// Where an IP packet begins in what the program sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkAt {
    /// At its start: a TUN device, and a link whose one tag the kernel has taken out.
    Start,
    /// Behind the rest of a second VLAN tag, whose type the kernel has already looked at.
    BehindInnerTag,
}

/// A program under construction.
struct Assembly(Vec<Instruction>);

impl Assembly {
    fn put(&mut self, code: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> usize {
        self.0.push(Instruction {
            code,
            registers: destination | source << 4,
            offset,
            immediate: immediate.cast_signed(),
        });
        self.0.len() - 1
    }

    fn load(&mut self, code: u8, at: u32) {
        self.put(code, 0, 0, 0, at);
    }

    /// Makes the jump at `from` lead to what is put next.
    fn land(&mut self, from: usize) {
        let distance = self.0.len() - from - 1;
        if let Some(jump) = self.0.get_mut(from) {
            // No program here has a hundred instructions.
            jump.offset = i16::try_from(distance).unwrap_or(i16::MAX);
        }
    }

    /// Mixes the words at these places into the hash.
    fn mix_words(&mut self, places: impl Iterator<Item = u32>) {
        for at in places {
            self.load(LOAD_WORD, at);
            self.put(XOR32_X, HASH, 0, 0, 0);
        }
    }

    /// Jumps, both of which are to be landed: taken if register 0 is neither TCP nor UDP.
    fn unless_ports(&mut self) -> usize {
        let tcp = self.put(JEQ_K, 0, 0, 0, u32::from(routing::packet::protocol::TCP));
        let other = self.put(JNE_K, 0, 0, 0, u32::from(routing::packet::protocol::UDP));
        self.land(tcp);
        other
    }
}

/// The instructions of a [`FlowProgram`].
fn flow_program(workers: u16, network: NetworkAt) -> Vec<Instruction> {
    let base = match network {
        NetworkAt::Start => 0,
        NetworkAt::BehindInnerTag => 4,
    };
    let mut code = Assembly(Vec::with_capacity(64));
    code.put(MOV64_X, PACKET, 1, 0, 0);
    code.put(MOV32_K, HASH, 0, 0, 0);
    code.put(MOV32_K, PORTS, 0, 0, 0);
    code.load(LOAD_BYTE, base);
    code.put(MOV32_X, HEADER, 0, 0, 0);
    code.put(RSH32_K, 0, 0, 0, 4);
    let v6 = code.put(JEQ_K, 0, 0, 0, 6);
    let neither = code.put(JNE_K, 0, 0, 0, 4);

    // IPv4: addresses; ports unless it is a fragment, whose later ones show none.
    code.put(AND32_K, HEADER, 0, 0, 0x0f);
    code.put(LSH32_K, HEADER, 0, 0, 2);
    code.mix_words([base + 12, base + 16].into_iter());
    code.load(LOAD_HALF, base + 6);
    code.put(AND32_K, 0, 0, 0, 0x3fff);
    let fragment = code.put(JNE_K, 0, 0, 0, 0);
    code.load(LOAD_BYTE, base + 9);
    let portless_v4 = code.unless_ports();
    code.put(LOAD_HALF_AT, 0, HEADER, 0, base);
    code.put(MOV32_X, PORTS, 0, 0, 0);
    code.put(LOAD_HALF_AT, 0, HEADER, 0, base + 2);
    code.put(XOR32_X, PORTS, 0, 0, 0);
    let done_v4 = code.put(JA, 0, 0, 0, 0);

    // IPv6: addresses; ports where they stand directly behind the header, so never of a fragment.
    code.land(v6);
    code.mix_words((0..8).map(|word| base + 8 + 4 * word));
    code.load(LOAD_BYTE, base + 6);
    let portless_v6 = code.unless_ports();
    code.load(LOAD_HALF, base + 40);
    code.put(MOV32_X, PORTS, 0, 0, 0);
    code.load(LOAD_HALF, base + 42);
    code.put(XOR32_X, PORTS, 0, 0, 0);

    for jump in [fragment, portless_v4, done_v4, portless_v6] {
        code.land(jump);
    }
    code.put(MUL32_K, PORTS, 0, 0, FIRST_FACTOR);
    code.put(XOR32_X, HASH, PORTS, 0, 0);
    for factor in [FIRST_FACTOR, SECOND_FACTOR] {
        code.put(MOV32_X, 0, HASH, 0, 0);
        code.put(RSH32_K, 0, 0, 0, 15);
        code.put(XOR32_X, HASH, 0, 0, 0);
        code.put(MUL32_K, HASH, 0, 0, factor);
    }
    code.put(MOV32_X, 0, HASH, 0, 0);
    code.put(RSH32_K, 0, 0, 0, 16);
    code.put(MOD32_K, 0, 0, 0, u32::from(workers.max(1)));
    code.put(EXIT, 0, 0, 0, 0);

    code.land(neither);
    code.put(MOV32_K, 0, 0, 0, 0);
    code.put(EXIT, 0, 0, 0, 0);
    code.0
}

/// A program in the kernel that names a worker for each flow: the same for both directions of a flow, and for
/// all fragments between two addresses. What is no IP packet goes to the first worker.
#[derive(Debug)]
pub struct FlowProgram(OwnedFd);

/// What BPF_PROG_LOAD reads (`union bpf_attr`, linux/bpf.h), as far as it is used.
#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

impl FlowProgram {
    /// Loads the program for this many workers.
    ///
    /// # Errors
    /// What the kernel said: without CAP_BPF (or CAP_SYS_ADMIN) there are no such programs, nor in a user
    /// namespace; then the kernel's own rules must do.
    pub fn load(workers: u16, network: NetworkAt) -> Result<Self, DeviceError> {
        Self::prepare(&flow_program(workers, network)).map_err(|error| {
            DeviceError::needing(Privilege::Programs, "load a steering program", error)
        })
    }

    fn prepare(instructions: &[Instruction]) -> Result<Self, Errno> {
        const BPF_PROG_LOAD: libc::c_int = 5;
        const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
        let license = c"Dual MIT/GPL";
        let load = Load {
            kind: BPF_PROG_TYPE_SOCKET_FILTER,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr().expose_provenance() as u64,
            license: license.as_ptr().expose_provenance() as u64,
            ..Load::default()
        };
        // SAFETY: `load` is what BPF_PROG_LOAD reads, of the length given; its pointers lead to `count`
        // instructions and a C string, which live through the call; the kernel copies them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_LOAD,
                std::ptr::from_ref(&load),
                size_of::<Load>(),
            )
        };
        let fd = check(result as isize)?;
        let fd = libc::c_int::try_from(fd).map_err(|_| Errno::BADF)?;
        // SAFETY: the kernel has just made this descriptor (close-on-exec) for nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

impl AsFd for FlowProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The program of a port's UDP sockets: the worker whose number stands in the top 8 bits of the receiver
/// index. That index is bytes 4 to 7 of a data message (type 4) and a cookie reply (3), bytes 8 to 11 of a
/// handshake response (2), the low byte first (WireGuard protocol, 5.4). All else, handshake initiations
/// among it, goes to the first worker.
pub fn by_receiver_index() -> [libc::sock_filter; 9] {
    /// BPF_A: return the accumulator (linux/filter.h).
    const ACCUMULATOR: u32 = 0x10;
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let equal = |k: u32, yes: u8, no: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: yes,
        jf: no,
        k,
    };
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    [
        statement(load_byte, 0),
        equal(4, 4, 0),
        equal(3, 3, 0),
        equal(2, 0, 4),
        statement(load_byte, 11),
        statement(libc::BPF_JMP | libc::BPF_JA, 1),
        statement(load_byte, 7),
        statement(libc::BPF_RET | ACCUMULATOR, 0),
        statement(libc::BPF_RET | libc::BPF_K, 0),
    ]
}
