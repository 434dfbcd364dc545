/** The newest `capacity` items; adding to a full one drops the oldest. */
export class Ring<T> {
  private items: T[] = [];
  private start = 0;

  constructor(readonly capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new RangeError('a ring holds at least one item');
  }

  get size(): number {
    return this.items.length;
  }

  push(item: T): void {
    if (this.items.length < this.capacity) {
      this.items.push(item);
      return;
    }
    this.items[this.start] = item;
    this.start = (this.start + 1) % this.capacity;
  }

  clear(): void {
    this.items = [];
    this.start = 0;
  }

  /** From the newest to the oldest. */
  *newest(): IterableIterator<T> {
    const count = this.items.length;
    for (let i = count - 1; i >= 0; --i) yield this.items[(this.start + i) % count] as T;
  }
}
