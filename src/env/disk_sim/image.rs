//! Bytes of a file in shared pages: a clone costs a pointer a page, a store copies what it hits.

use std::sync::Arc;

/// What a disk writes whole or not at all.
pub(super) const SECTOR: usize = 512;
/// What a kernel caches, and writes back, as one.
pub(super) const PAGE: usize = 4096;

pub(super) type Sector = [u8; SECTOR];
type Page = [u8; PAGE];

/// See the module head. A page that is `None` holds zeros; bytes behind `len` are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Image {
    pages: Vec<Option<Arc<Page>>>,
    len: usize,
}

impl Image {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Cuts, or lengthens with zeros.
    pub(super) fn set_len(&mut self, len: usize) {
        self.pages.resize(len.div_ceil(PAGE), None);
        let used = len % PAGE;
        if used > 0
            && len < self.len
            && let Some(Some(last)) = self.pages.last_mut()
        {
            Arc::make_mut(last)[used..].fill(0);
        }
        self.len = len;
    }

    /// Fills `buf`; what lies behind the end reads as zeros.
    pub(super) fn read(&self, at: usize, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let (index, inside) = ((at + done) / PAGE, (at + done) % PAGE);
            let piece = (PAGE - inside).min(buf.len() - done);
            let target = &mut buf[done..done + piece];
            match self.pages.get(index) {
                Some(Some(page)) => target.copy_from_slice(&page[inside..inside + piece]),
                _ => target.fill(0),
            }
            done += piece;
        }
    }

    /// Stores `bytes`; what would lie behind the end is left out.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let whole = bytes.len().min(self.len.saturating_sub(at));
        let mut done = 0;
        while done < whole {
            let (index, inside) = ((at + done) / PAGE, (at + done) % PAGE);
            let piece = (PAGE - inside).min(whole - done);
            let page = self.pages[index].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[inside..inside + piece].copy_from_slice(&bytes[done..done + piece]);
            done += piece;
        }
    }

    pub(super) fn sector(&self, index: usize) -> Sector {
        let mut bytes = [0; SECTOR];
        self.read(index * SECTOR, &mut bytes);
        bytes
    }

    pub(super) fn set_sector(&mut self, index: usize, bytes: &Sector) {
        self.write(index * SECTOR, bytes);
    }
}
