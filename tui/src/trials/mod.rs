//! What programs came to.
//!
//! | module | what |
//! |---|---|
//! | [`check`] | a program against its baseline |
//! | [`compare`] | profiles side by side: the tables, and what follows |
//! | [`outcome`] | one run of any program, in a page |
//! | `page` | what these pages have in common |
//! | [`plot`] | memory against time, as a picture |

pub mod check;
pub mod compare;
pub mod outcome;
mod page;
pub mod plot;
