//! How much one client may have at a time, so that one can't take everything.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// Places by client address. On loopback, where simulated machines share an address, there is no limit.
#[derive(Clone)]
pub struct Places {
    most: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    /// At most `most` for each client.
    pub fn new(most: usize) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// A place for `client`; `None`: it has all that it may have.
    pub fn enter(&self, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(client).or_default();
        if *count >= self.most && !client.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), client })
    }
}

/// One place; given back when dropped.
pub struct Place {
    places: Places,
    client: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_takes_no_more_than_its_places_and_gives_them_back() {
        let (places, client) = (Places::new(2), IpAddr::from([192, 0, 2, 1]));
        let held = [places.enter(client), places.enter(client)];
        assert!(held.iter().all(Option::is_some) && places.enter(client).is_none());
        assert!(places.enter("::ffff:192.0.2.1".parse().unwrap()).is_none(), "the same address");
        assert!(places.enter([192, 0, 2, 2].into()).is_some());
        drop(held);
        assert!(places.enter(client).is_some());
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is remembered of clients that are gone");
        let many: Vec<_> = (0..100).map(|_| places.enter([127, 0, 0, 1].into())).collect();
        assert!(many.iter().all(Option::is_some));
    }
}
