//! What panels are drawn with: one of each.
//!
//! | file | what |
//! |---|---|
//! | [`mod@line`] | text in roles: put together, aligned, broken into lines, cut between words |
//! | [`pen`] | writing within a rectangle, and nowhere else: text, marks, bars |
//! | [`bar`] | how many cells the parts of a whole get, and how they look |
//! | [`braille`] | curves in characters |
//! | [`columns`] | which columns of a table there is room for |
//! | [`rows`] | tables whose rows are selected, sorted, scrolled and clicked |
//! | [`page`] | a page of facts and tables, scrolled together |
//! | [`figures`] | ages, times, changes, scores in few columns |

pub(in crate::live) mod bar;
pub(in crate::live) mod braille;
pub(in crate::live) mod columns;
pub(in crate::live) mod figures;
pub(in crate::live) mod line;
pub(in crate::live) mod page;
pub(in crate::live) mod pen;
pub(in crate::live) mod rows;

pub(in crate::live) use bar::{Mark, stretch};
pub(in crate::live) use columns::{Column, Fit, fit};
pub(in crate::live) use line::{Line, flow};
pub(in crate::live) use pen::Pen;
pub(in crate::live) use rows::{Did, Head, List, Rows, matches, scrollbar};
