/** What the demo server tells its page. */
export interface DemoSettings {
  readonly apiUrl: string;
  readonly tokenUrl: string;
  readonly roomId: string;
  readonly people: readonly Person[];
}

export interface Person {
  /** User name and password at the issuer. */
  readonly name: string;
  readonly displayName: string;
  /** `sub` at the issuer. */
  readonly userId: string;
  /** Of a member, now or once let in. */
  readonly role: 'host' | 'speaker' | 'listener';
}
