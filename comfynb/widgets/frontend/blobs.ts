/** Pictures as object URLs: the latest used are kept, the others are revoked. */

interface Kept {
  url: string;
  bytes: number;
}

export class Blobs {
  readonly #kept = new Map<string, Kept>(); // least recently used first
  readonly #limit: number;
  readonly #onDrop: (key: string) => void;
  #bytes = 0;

  /**
   * @param limit How much is kept, in bytes; the latest one is kept whatever its size.
   * @param onDrop Told the key whose URL is no longer any good.
   */
  constructor(limit: number, onDrop: (key: string) => void = () => {}) {
    this.#limit = limit;
    this.#onDrop = onDrop;
  }

  /** Keep a picture under a key, in place of an earlier one, and return its URL. */
  put(key: string, data: DataView, mime: string): string {
    this.#revoke(key);
    // From the view itself: its buffer may hold the bytes of other messages too.
    const url = URL.createObjectURL(new Blob([data as DataView<ArrayBuffer>], { type: mime }));
    this.#kept.set(key, { url, bytes: data.byteLength });
    this.#bytes += data.byteLength;
    for (const oldest of this.#kept.keys()) {
      if (this.#bytes <= this.#limit || oldest === key) {
        break;
      }
      this.drop(oldest);
    }
    return url;
  }

  /** Return the URL of a picture, now the latest used, or null. */
  get(key: string): string | null {
    const found = this.#kept.get(key);
    if (!found) {
      return null;
    }
    this.#kept.delete(key);
    this.#kept.set(key, found);
    return found.url;
  }

  /** Forget a picture. */
  drop(key: string): void {
    if (this.#revoke(key)) {
      this.#onDrop(key);
    }
  }

  /** Forget all. */
  clear(): void {
    for (const key of [...this.#kept.keys()]) {
      this.drop(key);
    }
  }

  #revoke(key: string): boolean {
    const found = this.#kept.get(key);
    if (!found) {
      return false;
    }
    URL.revokeObjectURL(found.url);
    this.#bytes -= found.bytes;
    return this.#kept.delete(key);
  }
}
