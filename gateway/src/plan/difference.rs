//! Where two long lists differ.

/// Two lists without what both begin and both end with. Mostly one entry of a million differs: then the rest is one
/// entry long, and the million are only compared, which takes a hundredth of what sets of them would.
pub(crate) struct Difference<'a, T> {
    /// What both begin with.
    pub(crate) before: &'a [T],
    /// What is between, in the old list.
    pub(crate) old: &'a [T],
    /// What is between, in the new list.
    pub(crate) new: &'a [T],
    /// What both end with.
    pub(crate) behind: &'a [T],
}

impl<'a, T: PartialEq> Difference<'a, T> {
    /// Takes time in proportion to the lists' lengths.
    pub(crate) fn between(old: &'a [T], new: &'a [T]) -> Self {
        let same = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        let (before, old) = old.split_at_checked(same).unwrap_or((old, &[]));
        let new = new.get(same..).unwrap_or_default();
        let backwards = old.iter().rev().zip(new.iter().rev());
        let same = backwards.take_while(|(a, b)| a == b).count();
        let (old, behind) = old.split_at_checked(old.len() - same).unwrap_or((old, &[]));
        let new = new.get(..new.len() - same).unwrap_or_default();
        Self {
            before,
            old,
            new,
            behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_both_begin_and_end_with_is_in_neither_rest() {
        let parts = |old: &'static [u8], new: &'static [u8]| {
            let d = Difference::between(old, new);
            (d.before, d.old, d.new, d.behind)
        };
        assert_eq!(
            parts(b"abcde", b"abde"),
            (&b"ab"[..], &b"c"[..], &b""[..], &b"de"[..])
        );
        assert_eq!(
            parts(b"abde", b"abcde"),
            (&b"ab"[..], &b""[..], &b"c"[..], &b"de"[..])
        );
        assert_eq!(
            parts(b"axc", b"ayc"),
            (&b"a"[..], &b"x"[..], &b"y"[..], &b"c"[..])
        );
        assert_eq!(
            parts(b"aa", b"aaa"),
            (&b"aa"[..], &b""[..], &b"a"[..], &b""[..])
        );
        assert_eq!(parts(b"", b"a"), (&b""[..], &b""[..], &b"a"[..], &b""[..]));
        assert_eq!(
            parts(b"ab", b"ab"),
            (&b"ab"[..], &b""[..], &b""[..], &b""[..])
        );
    }
}
