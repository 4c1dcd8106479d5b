//! Memory in pages of 2 MB for what is large: the forwarding table, the flow cache, pools of buffers.
//!
//! A lookup in a table of many megabytes waits for memory, and with pages of 4 KB it also waits for the
//! page tables, in a virtual machine for those of both. The kernel gives pages of 2 MB by itself only
//! where it is set to `always`; Debian's default is `madvise`
//! (`/sys/kernel/mm/transparent_hugepage/enabled`), so one has to ask.
//!
//! 1. What is smaller than one such page goes to the system's allocator.
//! 2. The rest is mapped for itself, begins at a boundary of 2 MB, and is asked for in large pages. It is
//!    zero without being touched, so what is never used costs nothing.
//! 3. If the kernel has no large page to give, it gives small ones: nothing fails.

use libc::{MADV_HUGEPAGE, MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// Bytes of a large page (x86-64; of arm64 with pages of 4 KB).
const LARGE_PAGE: usize = 2 << 20;

/// The program's allocator: what is at least 2 MB lies in large pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct LargePages;

// SAFETY: `alloc` gives either what the system's allocator gives for the layout, or the begin of a private
// mapping of at least its size at a multiple of 2 MB, so it has the layout's alignment; nothing else knows
// the mapping until `dealloc` takes it back. Which of the two it was depends on the layout alone, so
// `dealloc`, which gets the same one, tells them apart. Nothing here panics or allocates.
unsafe impl GlobalAlloc for LargePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match mapped_length(layout) {
            Some(length) => map(length),
            // SAFETY: the caller's promises about the layout are those that the system's allocator asks.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match mapped_length(layout) {
            // A fresh mapping is zero.
            Some(length) => map(length),
            // SAFETY: as above.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        match mapped_length(layout) {
            Some(length) => {
                // SAFETY: `alloc` mapped exactly this range for this layout, and the caller promises that
                // nobody uses it any more. Unmapping a whole mapping of one's own cannot fail.
                unsafe { libc::munmap(place.cast(), length) };
            }
            // SAFETY: the system's allocator gave it for the same layout.
            None => unsafe { System.dealloc(place, layout) },
        }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `new_size` is not zero and does not overflow when rounded up.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if let (None, None) = (mapped_length(layout), mapped_length(new)) {
            // SAFETY: the system's allocator gave it for this layout.
            return unsafe { System.realloc(place, layout, new_size) };
        }
        if mapped_length(layout) == mapped_length(new) {
            // There is room in the last page.
            return place;
        }
        // SAFETY: `new` is a right layout; both places hold at least the smaller of the two sizes and do
        // not overlap, since one of them is new; and the old one is not used after this.
        unsafe {
            let moved = self.alloc(new);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(place, moved, layout.size().min(new_size));
                self.dealloc(place, layout);
            }
            moved
        }
    }
}

/// Bytes of the mapping for this layout; `None` if it goes to the system's allocator.
#[inline]
fn mapped_length(layout: Layout) -> Option<usize> {
    if layout.size() < LARGE_PAGE || layout.align() > LARGE_PAGE {
        return None;
    }
    layout.size().checked_next_multiple_of(LARGE_PAGE)
}

/// A mapping of `length` bytes, a multiple of 2 MB, that begins at one; null if there is no room.
#[cold]
fn map(length: usize) -> *mut u8 {
    let Some(with_slack) = length.checked_add(LARGE_PAGE) else {
        return ptr::null_mut();
    };
    // SAFETY: a new private mapping at a place that the kernel chooses touches nothing that exists.
    let start = unsafe {
        libc::mmap(
            ptr::null_mut(),
            with_slack,
            PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if start == MAP_FAILED {
        return ptr::null_mut();
    }
    let before = start.addr().wrapping_neg() % LARGE_PAGE;
    let after = LARGE_PAGE - before;
    let first = start.wrapping_byte_add(before);
    // SAFETY: `before` + `length` + `after` is the whole of the mapping made above, and all three are
    // multiples of the small page: the two ends are given back, what is between stays. The advice concerns
    // only that, and whether it is taken changes nothing but speed.
    unsafe {
        if before > 0 {
            libc::munmap(start, before);
        }
        libc::munmap(first.wrapping_byte_add(length), after);
        libc::madvise(first, length, MADV_HUGEPAGE);
    }
    first.cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_memory_begins_at_a_large_page_is_zero_and_keeps_what_is_in_it_when_it_grows() {
        for size in [LARGE_PAGE, LARGE_PAGE + 1, 5 * LARGE_PAGE - 3] {
            let layout = Layout::from_size_align(size, 64).unwrap();
            // SAFETY: the layout is not empty; every access stays inside what was asked for, and the
            // memory is given back with the layout that it then has.
            unsafe {
                let place = LargePages.alloc_zeroed(layout);
                assert_eq!(place.addr() % LARGE_PAGE, 0);
                assert_eq!((*place, *place.add(size - 1)), (0, 0));
                (*place, *place.add(size - 1)) = (7, 9);
                let grown = LargePages.realloc(place, layout, 2 * size);
                assert_eq!((*grown, *grown.add(size - 1)), (7, 9));
                assert_eq!(*grown.add(2 * size - 1), 0);
                let larger = Layout::from_size_align(2 * size, 64).unwrap();
                let small = LargePages.realloc(grown, larger, 100);
                assert_eq!(*small, 7);
                LargePages.dealloc(small, Layout::from_size_align(100, 64).unwrap());
            }
        }
    }

    #[test]
    fn small_memory_becomes_large_and_what_does_not_fit_is_refused() {
        let small = Layout::from_size_align(4096, 16).unwrap();
        // SAFETY: as above; the last two are refused, so there is nothing to give back.
        unsafe {
            let place = LargePages.alloc(small);
            *place.add(4095) = 3;
            let grown = LargePages.realloc(place, small, 3 * LARGE_PAGE);
            assert_eq!(*grown.add(4095), 3);
            LargePages.dealloc(grown, Layout::from_size_align(3 * LARGE_PAGE, 16).unwrap());
            let huge = Layout::from_size_align(isize::MAX as usize - 63, 64).unwrap();
            assert!(LargePages.alloc(huge).is_null());
            assert!(LargePages.alloc_zeroed(huge).is_null());
        }
    }
}
