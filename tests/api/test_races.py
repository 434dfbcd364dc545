"""What many at once must not break: there is one winner, and nobody's change is lost."""

import threading

import pytest

from gateway import PASSWORD

MANY = 12


def at_once(count, work):
    """`work(number)` in as many threads, let go together; what each gave."""
    ready, out = threading.Barrier(count), [None] * count

    def one(number):
        ready.wait()
        try:
            out[number] = work(number)
        except Exception as error:  # shown by whoever looks at the answers
            out[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return out


def statuses(answers):
    return sorted(getattr(answer, "status", answer) for answer in answers)


def test_two_first_registrations_make_one_admin(empty_gateway):
    answers = at_once(2, lambda number: empty_gateway.api(
        "POST", "/api/auth/register", {"email": f"first{number}@example.test", "password": PASSWORD}))
    assert statuses(answers) == [201, 201]
    assert sorted(answer.json["user"]["role"] for answer in answers) == ["admin", "user"]
    admin = next(answer.json["token"] for answer in answers if answer.json["user"]["role"] == "admin")
    users = empty_gateway.ask("GET", "/api/users", token=admin)
    assert sorted(user["role"] for user in users) == ["admin", "user"]


def test_one_address_is_registered_once(gateway):
    answers = at_once(MANY, lambda _: gateway.api(
        "POST", "/api/auth/register", {"email": "Same@Example.test", "password": PASSWORD}))
    assert statuses(answers) == [201] + [409] * (MANY - 1)
    assert {answer.code for answer in answers if answer.status == 409} == {"email_taken"}


@pytest.mark.parametrize("path, body, code, name", [
    ("/api/users", {"email": "twin@example.test", "password": PASSWORD}, "email_taken", "email"),
    ("/api/targets", {"name": "Twin", "url": "http://127.0.0.1:9/mcp"}, "name_taken", "name"),
    ("/api/targets", {"slug": "twin-slug", "url": "http://127.0.0.1:9/mcp"}, "slug_taken", "slug"),
])
def test_of_many_creations_of_one_name_one_succeeds(gateway, path, body, code, name):
    def create(number):
        sent = dict(body)
        if name == "name":  # names are compared ignoring case
            sent["name"] = "TWIN" if number % 2 else "twin"
        if name == "slug":
            sent["name"] = f"twin slug {number}"
        return gateway.api("POST", path, sent, as_="admin")

    answers = at_once(MANY, create)
    assert statuses(answers) == [201] + [409] * (MANY - 1), answers
    assert {answer.code for answer in answers if answer.status == 409} == {code}
    made = next(answer.json for answer in answers if answer.status == 201)
    rows = [row for row in gateway.ask("GET", path) if str(row[name]).lower() == str(made[name]).lower()]
    assert [row["id"] for row in rows] == [made["id"]]
    # The name is free again with its bearer gone, for one of many again.
    assert gateway.api("DELETE", f"{path}/{made['id']}", as_="admin").status == 204
    assert statuses(at_once(MANY, create)) == [201] + [409] * (MANY - 1)


def test_names_of_policies_may_repeat_and_subjects_may_not(gateway):
    answers = at_once(MANY, lambda _: gateway.api("POST", "/api/policies", {"name": "same", "effect": "deny"}, as_="admin"))
    assert statuses(answers) == [201] * MANY
    assert len({answer.json["id"] for answer in answers}) == MANY
    policy = answers[0].json["id"]
    subject = {"subject_type": "group", "subject_value": "night/shift"}
    answers = at_once(MANY, lambda _: gateway.api("POST", f"/api/policies/{policy}/subjects", subject, as_="admin"))
    assert statuses(answers) == [201] + [409] * (MANY - 1)
    assert {answer.code for answer in answers if answer.status == 409} == {"duplicate_subject"}
    assert len(gateway.ask("GET", f"/api/policies/{policy}")["subjects"]) == 1


def test_derived_slugs_are_all_different(gateway):
    answers = at_once(MANY, lambda number: gateway.api(
        "POST", "/api/targets", {"name": f"like{'.' * number}it", "url": "http://127.0.0.1:9/mcp"}, as_="admin"))
    made = [answer for answer in answers if answer.status == 201]
    assert len(made) == MANY - 0 and len({answer.json["slug"] for answer in made}) == MANY, answers


def things(gateway):
    """Of each kind that has a version: its path, two members, and a value of the first for a number."""
    target = gateway.ask("POST", "/api/targets", {"name": "versioned", "url": "http://127.0.0.1:9/mcp"})
    policy = gateway.ask("POST", "/api/policies", {"name": "versioned", "effect": "deny"})
    user = gateway.ask("POST", "/api/users", {"email": "versioned@example.test", "password": PASSWORD})
    yield f"/api/targets/{target['id']}", lambda number: {"timeout_ms": 2000 + number}
    yield f"/api/policies/{policy['id']}", lambda number: {"priority": number}
    yield f"/api/users/{user['id']}", lambda number: {"groups": [f"g{number}"]}


def test_if_match_loses_no_update(gateway):
    for path, change in things(gateway):
        read = gateway.api("GET", path, as_="admin")
        tag = read.headers["etag"]
        assert tag.startswith('"')
        answers = at_once(MANY, lambda number: gateway.api("PUT", path, change(number), as_="admin", headers={"If-Match": tag}))
        assert statuses(answers) == [200] + [412] * (MANY - 1), answers
        assert {answer.code for answer in answers if answer.status == 412} == {"precondition_failed"}
        won = next(answer for answer in answers if answer.status == 200)
        now = gateway.api("GET", path, as_="admin")
        assert now.json == won.json and now.headers["etag"] == won.headers["etag"] != tag
        # Each who reads again and repeats comes through: as many changes as there are writers.
        tags = set()

        def persist(number):
            while True:
                seen = gateway.api("GET", path, as_="admin").headers["etag"]
                answer = gateway.api("PUT", path, change(100 + number), as_="admin", headers={"If-Match": seen})
                if answer.status != 412:
                    tags.add(answer.headers["etag"])
                    return answer

        assert statuses(at_once(4, persist)) == [200] * 4
        assert len(tags) == 4
        for refused in (tag, f"W/{now.headers['etag']}", '"nothing"', "", "no tag"):
            answer = gateway.api("DELETE", path, as_="admin", headers={"If-Match": refused})
            assert (answer.status, answer.code) == (412, "precondition_failed"), (refused, answer)
        tag = gateway.api("GET", path, as_="admin").headers["etag"]
        assert gateway.api("DELETE", path, as_="admin", headers={"If-Match": f'"0", {tag}'}).status == 204
        assert gateway.api("PUT", path, {}, as_="admin", headers={"If-Match": "*"}).status == 404


def test_without_if_match_each_writer_keeps_the_members_of_the_others(gateway):
    target = gateway.ask("POST", "/api/targets", {"name": "shared edit", "url": "http://127.0.0.1:9/mcp"})
    changes = [{"timeout_ms": 4321}, {"prefix": "always"}, {"max_concurrency": 7}, {"statefulness": "stateful"},
               {"health_path": "/up"}, {"port": 81}]
    answers = at_once(len(changes), lambda number: gateway.api(
        "PUT", f"/api/targets/{target['id']}", changes[number], as_="admin"))
    assert statuses(answers) == [200] * len(changes)
    now = gateway.ask("GET", f"/api/targets/{target['id']}")
    for change in changes:
        assert change.items() <= now.items()


def test_the_last_admin_stays_when_all_go_at_once(empty_gateway):
    empty_gateway.ask("POST", "/api/auth/register", {"email": "a0@example.test", "password": PASSWORD}, as_=None)
    tokens = [empty_gateway.login("a0@example.test")]
    for number in range(1, 6):
        empty_gateway.ask("POST", "/api/users", {"email": f"a{number}@example.test", "password": PASSWORD, "role": "admin"},
                          token=tokens[0])
        tokens.append(empty_gateway.login(f"a{number}@example.test"))
    users = empty_gateway.ask("GET", "/api/users", token=tokens[0])
    ways = [("PUT", {"enabled": False}), ("PUT", {"role": "user"}), ("DELETE", None)]

    def leave(number):
        method, body = ways[number % 3]
        return empty_gateway.api(method, f"/api/users/{users[number]['id']}", body, token=tokens[number])

    answers = at_once(len(users), leave)
    assert statuses(answers).count(409) == 1, answers
    assert {answer.code for answer in answers if answer.status == 409} == {"last_admin"}
    left = next(number for number, answer in enumerate(answers) if answer.status == 409)
    admins = [user for user in empty_gateway.ask("GET", "/api/users", token=tokens[left])
              if user["role"] == "admin" and user["enabled"]]
    assert [user["email"] for user in admins] == [f"a{left}@example.test"]
