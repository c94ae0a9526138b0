package storetest

import (
	"cmp"
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ratchet-go/auth"
)

// flaws lists the flaws, the cases that must fail because of each, and those that
// may fail, depending on timing. "*" means that any other case may fail.
var flaws = []struct {
	flaw  string
	fails []string
	may   []string
}{
	{flaw: ""},
	{flaw: "rotates by Get and Set",
		fails: []string{"Rotate_OneOfManyAtOnceAdvances", "Rotate_OneOfManyAtOnceRestores"},
		may:   []string{"Rotate_LosersGetTheWinnersWrite", "Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "returns losers a stale session", fails: []string{"Rotate_LosersGetTheWinnersWrite"}, may: []string{"Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "rewrites all sessions of a subject",
		fails: []string{"Rotate_SessionsOfOneSubjectAreIndependent", "Rotate_OneOfManyAtOnceAdvances", "Rotate_OneOfManyAtOnceRestores"},
		may:   []string{"Rotate_LosersGetTheWinnersWrite", "Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "rotates in two writes",
		fails: []string{"Rotate_IsAtomicForReaders"},
		may:   []string{"Rotate_OneOfTwoKeysAtOnceWins", "Rotate_LosersGetTheWinnersWrite", "Rotate_OneOfManyAtOnceAdvances", "Rotate_OneOfManyAtOnceRestores"}},
	{flaw: "upserts in Rotate", fails: []string{"Rotate_IsNeverAnUpsert", "Rotate_UnknownIsNotFound", "Revoke_IsFinalDuringRotations", "Spend_IsIndependentOfSessions"}},
	{flaw: "returns a fault for an absent session", fails: []string{"Rotate_UnknownIsNotFound", "Revoke_IsFinalDuringRotations", "Spend_IsIndependentOfSessions"}},
	{flaw: "ignores the cooldown", fails: []string{"Rotate_NotDuringCooldown", "Rotate_OneOfManyAtOnceRestores", "Rotate_KeepsRetryTagIfNotRotated"}},
	{flaw: "compares the cooldown with >=", fails: []string{"Rotate_AdvancesFromStoredGeneration", "Rotate_NotDuringCooldown"}},
	{flaw: "compares generations as text",
		fails: []string{"Rotate_SpentGenerationChangesNothing", "Rotate_LostWritesAreRestored"},
		may: []string{"Rotate_OneOfManyAtOnceRestores", "Rotate_OneOfManyAtOnceAdvances", "Rotate_LosersGetTheWinnersWrite", "Rotate_RotatedAtMayMoveBack",
			"Rotate_SetsRetryTag", "Rotate_EmptiesSpentRetryTag", "Rotate_SetsKeyOnce", "Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "does not restore lost writes",
		fails: []string{"Rotate_LostWritesAreRestored", "Rotate_OneOfManyAtOnceRestores", "Rotate_RotatedAtMayMoveBack"},
		may:   []string{"Rotate_SetsRetryTag", "Rotate_EmptiesSpentRetryTag", "Rotate_SetsKeyOnce", "Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "restores lost writes only after the cooldown", fails: []string{"Rotate_LostWritesAreRestored"}},
	{flaw: "reports a retry as a rotation",
		fails: []string{"Rotate_MayBeRepeated", "Rotate_OneOfManyAtOnceAdvances", "Rotate_SpentGenerationChangesNothing", "Get_ReturnsLargeGenerations"},
		may:   []string{"Rotate_OneOfManyAtOnceRestores", "Rotate_KeepsRetryTagIfNotRotated"}},
	{flaw: "never sets RotatedAt back", fails: []string{"Rotate_RotatedAtMayMoveBack"}},
	{flaw: "keeps the device if the new one is empty", fails: []string{"Rotate_SetsEveryField"}},
	{flaw: "compares devices by address only", fails: []string{"Rotate_SetsEveryField"}},
	{flaw: "compares devices by user agent only", fails: []string{"Rotate_SetsEveryField"}},
	{flaw: "checks before it creates", fails: []string{"Create_OneOfManyAtOnceWins"}},
	{flaw: "overwrites on Create", fails: []string{"Create_DuplicateIDIsRefused", "Create_OneOfManyAtOnceWins", "Nodes_SeeEachOthersWrites"}},
	{flaw: "keeps the caller's data slice", fails: []string{"Create_CopiesData"}},
	{flaw: "returns its own data slice", fails: []string{"Get_CallerMayModifyResult"}},
	{flaw: "returns local times", fails: []string{"Get_ReturnsTimesAsGiven"}},
	{flaw: "stores generations in 32 bits", fails: []string{"Get_ReturnsLargeGenerations"}},
	{flaw: "stores data as text", fails: []string{"Get_ReturnsDataAsGiven"}},
	{flaw: "truncates user agents", fails: []string{"Get_ReturnsDeviceAsGiven"}},
	{flaw: "extends the session on Get", fails: []string{"Get_ChangesNothing"}, may: []string{"*"}},
	{flaw: "returns no error for an absent session", fails: []string{"Get_UnknownIsNotFound"}, may: []string{"*"}},
	{flaw: "folds the case of subjects", fails: []string{"Names_SubjectsAreComparedByteForByte"}},
	{flaw: "identifies sessions by ID only", fails: []string{"Create_SameIDUnderTwoSubjectsIsTwoSessions"}, may: []string{"*"}},
	{flaw: "refuses sessions created ahead of its clock", fails: []string{"Expiry_ClocksOfCallersDiffer"}},
	{flaw: "lists a record for each refresh", fails: []string{"Growth_RefreshesLeaveOneRecord"}, may: []string{"*"}},
	{flaw: "deletes by prefix", fails: []string{"Revoke_AllTouchesNoOtherSubject"}, may: []string{"*"}},
	{flaw: "deletes only the first listed session", fails: []string{"Revoke_DeletesListedSessions"}, may: []string{"*"}},
	{flaw: "advances the position too far", fails: []string{"Feed_ContinuesFromNext"}, may: []string{"*"}},
	{flaw: "delivers each revocation to one reader", fails: []string{"Feed_ReachesEveryProcess"}, may: []string{"*"}},
	{flaw: "trims IDs", fails: []string{"Names_IDsAreComparedByteForByte"}, may: []string{"Names_SubjectAndIDAreSeparate"}},
	{flaw: "joins subject and ID", fails: []string{"Names_SubjectAndIDAreSeparate"}},
	{flaw: "lists by prefix",
		fails: []string{"List_OnlyOneSubject", "Names_SubjectsAreComparedByteForByte", "Names_SubjectAndIDAreSeparate", "Revoke_AllTouchesNoOtherSubject"}},
	{flaw: "lists the oldest first", fails: []string{"List_LastUsedFirst", "List_ManySessionsInOrder"}},
	{flaw: "returns an error for an empty list", fails: []string{"List_UnknownSubjectIsEmpty"}, may: []string{"*"}},
	{flaw: "removes records at ExpiresAt",
		fails: []string{"Expiry_RecordStaysForAMinute", "Expiry_FollowsRotate"},
		may:   []string{"Expiry_ClocksOfCallersDiffer"}},
	{flaw: "ignores ExpiresAt of Rotate", fails: []string{"Expiry_FollowsRotate"}},
	{flaw: "deletes sessions created at Before", fails: []string{"Revoke_AllDeletesSessionsCreatedBefore", "Revoke_ListAndAll"}},
	{flaw: "ignores Before",
		fails: []string{"Revoke_AllDeletesSessionsCreatedBefore", "Revoke_ListAndAll", "Revoke_RepeatedKeepsLaterLogins", "Revoke_AllDuringLogins"},
		may:   []string{"Feed_PublishesIfNothingIsDeleted"}},
	{flaw: "ignores Except", fails: []string{"Revoke_AllKeepsExcept", "Revoke_ListAndAll"}},
	{flaw: "deletes without All", fails: []string{"Revoke_NeitherListNorAllDeletesNothing"}},
	{flaw: "publishes only if it deleted", fails: []string{"Feed_PublishesIfNothingIsDeleted"}},
	{flaw: "publishes before it deletes", fails: []string{"Feed_PublishesAfterDeleting"}},
	{flaw: "publishes at most 100 IDs", fails: []string{"Feed_ReturnsWhatWasRevoked"}},
	{flaw: "orders the feed by number",
		fails: []string{"Feed_OmitsNothing"},
		may:   []string{"Feed_EmptyPositionReturnsAll", "Feed_PublishesAfterDeleting", "Feed_ReachesEveryProcess"}},
	{flaw: "shares the slices of revocations", fails: []string{"Feed_CallerMayModifyResult"}},
	{flaw: "returns only one page", fails: []string{"Feed_EmptyPositionReturnsAll"}, may: []string{"Feed_OmitsNothing", "Feed_PagesAreComplete"}},
	{flaw: "always returns more", fails: []string{"Feed_PagesAreComplete", "Feed_WaitsAtMostWait"}, may: []string{"*"}},
	{flaw: "skips a revocation between pages",
		fails: []string{"Feed_PagesAreComplete", "Feed_EmptyPositionReturnsAll"},
		may:   []string{"Feed_OmitsNothing", "Feed_PublishesAfterDeleting", "Feed_ReachesEveryProcess"}},
	{flaw: "ends the feed after one page", fails: []string{"Feed_PagesAreComplete"}, may: []string{"*"}},
	{flaw: "waits although there is more", fails: []string{"Feed_PagesAreComplete"}, may: []string{"*"}},
	{flaw: "creates invalid sessions", fails: []string{"Refuse_InvalidCreate"}},
	{flaw: "creates before it checks", fails: []string{"Refuse_InvalidCreate"}},
	{flaw: "rotates to invalid values", fails: []string{"Refuse_InvalidRotate"}},
	{flaw: "has no last generation", fails: []string{"Refuse_RotateBeyondLastGeneration"}},
	{flaw: "publishes invalid revocations", fails: []string{"Refuse_InvalidRevoke"}},
	{flaw: "deletes before it checks", fails: []string{"Refuse_InvalidRevoke"}},
	{flaw: "returns a fault for invalid names", fails: []string{"Refuse_InvalidNamesAreNotFound"}},
	{flaw: "unmaps addresses", fails: []string{"Refuse_NoValidValue"}},
	{flaw: "loses reasons", fails: []string{"Feed_ReturnsWhatWasRevoked"}},
	{flaw: "loses revocation IDs", fails: []string{"Feed_ReturnsIDsAndNotices"}, may: []string{"Refuse_NoValidValue"}},
	{flaw: "truncates AccessTTL to seconds", fails: []string{"Feed_ReturnsIDsAndNotices"}},
	{flaw: "applies a notice to all subjects", fails: []string{"Feed_ReturnsIDsAndNotices"}},
	{flaw: "accepts any position"},
	{flaw: "starts at the end after an unknown position", fails: []string{"Feed_RefusesUnknownPosition"}},
	{flaw: "does not detect a lost history", fails: []string{"Feed_RefusesUnknownPosition"}},
	{flaw: "returns the empty position", fails: []string{"Feed_EmptyPositionReturnsAll"}, may: []string{"*"}},
	{flaw: "waits forever with wait 0", fails: []string{"Feed_WaitsAtMostWait", "Feed_EmptyPositionReturnsAll"}, may: []string{"*"}},
	{flaw: "does not wait", fails: []string{"Feed_WaitsAtMostWait"}, may: []string{"Feed_ReturnsWhenContextEnds"}},
	{flaw: "returns an error after wait", fails: []string{"Feed_WaitsAtMostWait"}, may: []string{"*"}},
	{flaw: "does not wake up", fails: []string{"Feed_WakesOnRevocation"}},
	{flaw: "ignores the context while it waits", fails: []string{"Feed_ReturnsWhenContextEnds"}},
	{flaw: "ignores contexts", fails: []string{"Context_EndedCallReturnsError", "Feed_ReturnsWhenContextEnds"}},
	{flaw: "returns absence for an ended context", fails: []string{"Context_EndedCallReturnsNoDecision"}},
	{flaw: "stops between deleting and publishing", fails: []string{"Context_EndedCallIsAtomic"}},
	{flaw: "creates no tag without data", fails: []string{"Get_ReturnsTagsAndKeysAsGiven"}},
	{flaw: "creates a key of zeros", fails: []string{"Get_ReturnsTagsAndKeysAsGiven"}, may: []string{"*"}},
	{flaw: "takes tags and keys of any length", fails: []string{"Refuse_InvalidCreate", "Refuse_InvalidRotate"}},
	{flaw: "empties a repeated tag", fails: []string{"Rotate_SetsRetryTag"}},
	{flaw: "keeps the tag if the new one is empty", fails: []string{"Rotate_SetsRetryTag"},
		may: []string{"Rotate_ComparesWholeTags", "Rotate_OneOfManyAtOnceAdvances", "Rotate_OneOfManyAtOnceRestores", "Rotate_LosersGetTheWinnersWrite"}},
	{flaw: "ignores SpentTag", fails: []string{"Rotate_EmptiesSpentRetryTag"},
		may: []string{"Rotate_OneOfManyAtOnceAdvances", "Rotate_OneOfManyAtOnceRestores", "Rotate_LosersGetTheWinnersWrite", "Rotate_SetsKeyOnce"}},
	{flaw: "ignores SpentTag when it restores", fails: []string{"Rotate_EmptiesSpentRetryTag"},
		may: []string{"Rotate_OneOfManyAtOnceRestores", "Rotate_SetsKeyOnce"}},
	{flaw: "compares tags without case", fails: []string{"Rotate_ComparesWholeTags"},
		may: []string{"Rotate_EmptiesSpentRetryTag"}}, // bytes that are no UTF-8 count as equal
	{flaw: "compares eight bytes of tags", fails: []string{"Rotate_ComparesWholeTags"}},
	{flaw: "takes an empty tag for zeros", fails: []string{"Rotate_ComparesWholeTags"}},
	{flaw: "takes two empty tags for a spent one", fails: []string{"Rotate_ComparesWholeTags"},
		may: []string{"Rotate_OneOfManyAtOnceAdvances", "Rotate_OneOfManyAtOnceRestores", "Rotate_LosersGetTheWinnersWrite"}},
	{flaw: "empties a spent tag without a rotation", fails: []string{"Rotate_KeepsRetryTagIfNotRotated"}},
	{flaw: "returns losers their own tag", fails: []string{"Rotate_LosersGetTheWinnersWrite", "Rotate_KeepsRetryTagIfNotRotated"}},
	{flaw: "sets the tag in a second write", fails: []string{"Rotate_IsAtomicForReaders"},
		may: []string{"Rotate_OneOfTwoKeysAtOnceWins", "Rotate_LosersGetTheWinnersWrite", "Rotate_OneOfManyAtOnceAdvances", "Rotate_OneOfManyAtOnceRestores"}},
	{flaw: "keeps the caller's tag slice", fails: []string{"Rotate_CopiesTagsAndKey"}},
	{flaw: "returns its own tag slice", fails: []string{"Get_CallerMayModifyResult"}},
	{flaw: "sets the key at the first rotation only", fails: []string{"Rotate_SetsKeyOnce"}, may: []string{"Rotate_OtherKeyChangesNothing", "Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "sets no key when it restores", fails: []string{"Rotate_SetsKeyOnce", "Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "ignores the key when it restores", fails: []string{"Rotate_OtherKeyChangesNothing", "Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "takes no key for any key", fails: []string{"Rotate_OtherKeyChangesNothing"}},
	{flaw: "compares keys without case", fails: []string{"Rotate_OtherKeyChangesNothing"}},
	{flaw: "checks the key before it rotates", fails: []string{"Rotate_OneOfTwoKeysAtOnceWins"}},
	{flaw: "takes the same until for a repetition", fails: []string{"Spend_OnlyOnce"}, may: []string{"*"}},
	{flaw: "checks before it spends", fails: []string{"Spend_OneOfManyAtOnceWins"}},
	{flaw: "folds the case of what is spent", fails: []string{"Spend_NamesAreComparedByteForByte"}},
	{flaw: "joins subject and ID of what is spent", fails: []string{"Spend_SubjectAndIDAreSeparate"}},
	{flaw: "keeps only some of what is spent", fails: []string{"Spend_ManyRecords"}, may: []string{"Spend_NamesAreComparedByteForByte"}},
	{flaw: "removes what is spent at until", fails: []string{"Spend_RecordStaysForAMinute"}},
	{flaw: "spends until the last until", fails: []string{"Spend_LaterCallsDoNotChangeUntil"}},
	{flaw: "refuses to spend until the past", fails: []string{"Spend_EveryUntil"}, may: []string{"Spend_LaterCallsDoNotChangeUntil"}},
	{flaw: "revokes what is spent", fails: []string{"Spend_IsIndependentOfSessions"}},
	{flaw: "does not create what is spent", fails: []string{"Spend_IsIndependentOfSessions"}, may: []string{"Context_EndedCallIsAtomic"}},
	{flaw: "spends invalid names", fails: []string{"Refuse_InvalidSpend"}},
	{flaw: "spends before it checks", fails: []string{"Refuse_InvalidSpend"}},
	{flaw: "returns ErrSpent for an ended context", fails: []string{"Context_EndedCallReturnsNoDecision"}, may: []string{"Context_EndedCallIsAtomic"}},
	{flaw: "takes its own record for that of another call", fails: []string{"Context_EndedCallIsAtomic"}},
}

// broad lists cases that depend on much of the contract, and so may fail because
// of any flaw.
var broad = []string{
	"Refuse_InvalidCreate", "Refuse_InvalidRevoke", "Refuse_InvalidNamesAreNotFound",
	"Refuse_RotateBeyondLastGeneration", "Refuse_NoValidValue", "Feed_PagesAreComplete",
}

func TestRun_CorrectStorePasses(t *testing.T) {
	t.Parallel()
	Run(t, func(*testing.T) func() auth.Store {
		f := newFlawedStore("")
		return func() auth.Store { return f }
	})
}

// TestCases_EachFlawFailsItsCases runs every case against every flaw. Only the
// cases that are listed for the flaw fail.
func TestCases_EachFlawFailsItsCases(t *testing.T) {
	if testing.Short() {
		t.Skip("skipped by -short: runs the cases against each of many stores")
	}
	t.Parallel()
	tested := map[string]bool{}
	for _, f := range flaws {
		for _, name := range f.fails {
			tested[name] = true
		}
		t.Run(cmp.Or(f.flaw, "none"), func(t *testing.T) {
			t.Parallel()
			for _, c := range cases() {
				err := runOn(t, c, f.flaw)
				switch {
				case slices.Contains(f.fails, c.name):
					require.Error(t, err, "%s passed", c.name)
				case !slices.Contains(f.may, c.name) && !slices.Contains(f.may, "*") && !slices.Contains(broad, c.name):
					require.NoError(t, err, c.name)
				}
				if err != nil {
					t.Logf("%s: %v", c.name, err)
				}
			}
		})
	}
	for _, c := range cases() {
		require.True(t, tested[c.name], "no flaw fails %s", c.name)
	}
}

// runOn runs a case on a store with a flaw, in a synctest bubble, so that waiting
// takes no time.
func runOn(t *testing.T, c testcase, flaw string) (err error) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		store := newFlawedStore(flaw)
		store.latency = time.Microsecond // without a wait in each call the time of the bubble would not advance
		e := &env{ctx: ctx, open: func() auth.Store { return store }, rounds: 12, many: 30, patience: 5 * time.Second}
		err = c.run(e)
		cancel()
		time.Sleep(time.Hour) // let abandoned calls return
	})
	return err
}

// TestCases_RulesAreTheContract checks that the comments of store.go contain each
// rule.
func TestCases_RulesAreTheContract(t *testing.T) {
	t.Parallel()
	f, err := parser.ParseFile(token.NewFileSet(), "../store.go", nil, parser.ParseComments)
	require.NoError(t, err)
	var text []string
	plain := regexp.MustCompile(`\[([\w.]+)\]`)
	add := func(group *ast.CommentGroup) {
		text = append(text, plain.ReplaceAllString(strings.Join(strings.Fields(group.Text()), " "), "$1"))
	}
	for _, group := range f.Comments {
		add(group)
	}
	contract := strings.Join(text, "\n")
	names := map[string]bool{}
	for _, c := range cases() {
		require.Contains(t, contract, c.rule, c.name)
		require.False(t, names[c.name], c.name)
		names[c.name] = true
	}
}

func TestCases_NamesDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range names() {
		require.False(t, seen[name], "%q", name)
		require.LessOrEqual(t, len(name), 255)
		seen[name] = true
	}
}
